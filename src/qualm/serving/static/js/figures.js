// Readings as people read them: shares in percent, their differences in percentage points.
import { number, t } from "./words.js";

const MINUS = "−";
const FINE = ["bits per byte", "nats", "nats per token"];

/** @param {number} value */
const digits = (value) => (Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : Math.abs(value) >= 1 ? 2 : 3);
/** @param {number} value @param {number} places */
const signed = (value, places) => (value < 0 ? MINUS : "") + number(Math.abs(value), places);
/** @param {number} value @param {string} unit */
const scaled = (value, unit) =>
  unit === "share" ? signed(100 * value, 1) : unit === "bytes" ? `${signed(value / 1e6, 1)} MB` : signed(value, FINE.includes(unit) ? 3 : digits(value));

/** @param {number | null} value @param {string} unit */
export function figure(value, unit) {
  if (value === null || value === undefined) return "–";
  if (unit === "share") return `${scaled(value, unit)}%`;
  return unit === "bytes" ? scaled(value, unit) : `${scaled(value, unit)} ${t(unit)}`;
}

/** @param {number} value @param {string} unit */
export function difference(value, unit) {
  const sign = value > 0 ? "+" : "";
  return sign + scaled(value, unit) + (unit === "share" ? ` ${t("points")}` : "");
}

/** @param {{low: number | null, high: number | null}} ends @param {string} unit @param {boolean} [change] */
export function interval({ low, high }, unit, change = false) {
  if (low === null || high === null) return "";
  const [a, b] = [low, high].map((end) => (change && end > 0 ? "+" : "") + scaled(end, unit));
  return `[${a} … ${b}]`;
}
