// The page's words. English stands in the code; Chinese here. `t` says a word in the language in force.
import { chinese } from "./chinese.js";

const LANGUAGE = "qualm.language";

/** @type {"en" | "zh"} */
export let language = stored();

function stored() {
  const kept = localStorage.getItem(LANGUAGE);
  if (kept === "en" || kept === "zh") return kept;
  return navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
}

/** @param {"en" | "zh"} chosen */
export function speak(chosen) {
  language = chosen;
  localStorage.setItem(LANGUAGE, chosen);
  document.documentElement.lang = chosen === "zh" ? "zh-CN" : "en";
}

/** @param {string} words @param {Record<string, string | number>} [values] for {names} in the words */
export function t(words, values = {}) {
  const said = language === "zh" ? chinese[words] ?? words : words;
  return said.replace(/\{(\w+)\}/g, (all, name) => (name in values ? String(values[name]) : all));
}

/** @param {number} value @param {number} [digits] */
export const number = (value, digits = 0) =>
  value.toLocaleString(language === "zh" ? "zh-CN" : "en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

/** @param {number} share */
export function percent(share) {
  const value = 100 * share;
  if (value > 0 && value < 0.1) return "<0.1%";
  return `${number(value, value >= 99.95 || value < 0.05 ? 0 : 1)}%`;
}
