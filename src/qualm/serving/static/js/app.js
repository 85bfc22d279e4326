// The page: what stands in its bar, and which view is open. Views are the files beside this one.
import { html, render, useEffect, useState } from "../vendor/preact.js";
import { keep } from "./api.js";
import { Audits, Report } from "./audits.js";
import { Cards } from "./cards.js";
import { Chat } from "./chat.js";
import { Compare } from "./compare.js";
import { Explain } from "./explain.js";
import { Knowledge } from "./knowledge.js";
import { Trouble, useGet } from "./parts.js";
import { language, speak, t } from "./words.js";

const VIEWS = /** @type {const} */ ([
  ["chat", "Chat", Chat],
  ["compare", "Side by side", Compare],
  ["knowledge", "Knowledge", Knowledge],
  ["explain", "Explain", Explain],
  ["audits", "Audits", Audits],
  ["models", "Models", Cards],
]);
const THEME = "qualm.theme";

/** @param {string | null} theme */
function paint(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
}

/** The parts of the address behind #/. */
function here() {
  const [view = "", ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  return { view: view || "chat", rest: decodeURIComponent(rest.join("/")) };
}

function App() {
  const [place, go] = useState(here());
  const [, speech] = useState(language);
  const { value, error, again } = useGet("/v1/models");
  useEffect(() => {
    const moved = () => go(here());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  const title = VIEWS.find(([name]) => name === place.view)?.[1] || "Chat";
  useEffect(() => {
    document.title = `${t(title)} · Qualm`;
    document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  }, [title, language]);
  const other = language === "zh" ? "en" : "zh";
  return html`<a class="skip" href="#main" onClick=${skip}>${t("Skip to the content")}</a>
    <header class="site"><a class="brand" href="#/chat">Qualm</a>
      <nav aria-label=${t("Views")}><ul>${VIEWS.map(([name, label]) => html`<li>
        <a href=${`#/${name}`} aria-current=${name === place.view ? "page" : null}>${t(label)}</a></li>`)}</ul></nav>
      <button type="button" class="quiet" lang=${other === "zh" ? "zh-CN" : "en"} onClick=${() => (speak(other), speech(other))}>${other === "zh" ? "中文" : "English"}</button>
      <button type="button" class="theme" aria-label=${t("Light or dark")} onClick=${turn}><span></span></button></header>
    <main id="main" tabindex="-1">
      ${error ? html`<${Locked} error=${error} again=${again} />` : value ? html`<${View} place=${place} models=${value.data} />`
        : html`<p class="soft" role="status">${t("Loading")}</p>`}
    </main>`;
}

/** @param {{place: {view: string, rest: string}, models: any[]}} props */
function View({ place, models }) {
  if (place.view === "report") return html`<${Report} id=${place.rest} />`;
  const view = VIEWS.find(([name]) => name === place.view)?.[2] || Chat;
  return html`<${view} key=${place.view} models=${models} />`;
}

/** Where a key is asked for. @param {{error: string, again: () => void}} props */
function Locked({ error, again }) {
  const enter = (/** @type {any} */ event) => {
    event.preventDefault();
    keep(event.target.elements.key.value.trim());
    again();
  };
  return html`<section class="locked"><${Trouble} text=${error} /><form class="stack" onSubmit=${enter}>
    <label>${t("API key")} <small>${t("kept for this tab only")}</small><input name="key" type="password" autocomplete="off" /></label>
    <button type="submit" class="primary">${t("Go on")}</button></form></section>`;
}

/** @param {Event} event */
function skip(event) {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

function turn() {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  const theme = dark ? "light" : "dark";
  localStorage.setItem(THEME, theme);
  paint(theme);
}

paint(localStorage.getItem(THEME));
speak(language);
render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById("app")));
