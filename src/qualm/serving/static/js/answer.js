// One answer of a model as it grows: asking for it, and showing it with what stands behind it.
import { html, useState } from "../vendor/preact.js";
import { chat } from "./api.js";
import { Markdown } from "./markdown.js";
import { Tokens } from "./tokens.js";
import { number, percent, t } from "./words.js";

/** @typedef {import("./api.js").TokenTold} TokenTold */
/** @typedef {{role: string, text: string, tokens: TokenTold[], finish: string, error: string, ours: any, seconds: number, model: string}} Answer */
/** @typedef {{temperature: number, top_p: number, max_tokens: number, seed: number, knowledge: string, system: string}} Settings */

/** @type {Settings} */
export const USUAL = { temperature: 0, top_p: 1, max_tokens: 256, seed: 0, knowledge: "", system: "" };

/** @param {string} model @returns {Answer} */
export const begun = (model) => ({ role: "assistant", text: "", tokens: [], finish: "", error: "", ours: null, seconds: 0, model });

/**
 * Ask, and tell of the answer each time it has grown.
 * @param {string} model @param {{role: string, content: string}[]} messages @param {Settings} settings
 * @param {AbortSignal} signal @param {(answer: Answer) => void} tell
 */
export async function ask(model, messages, settings, signal, tell) {
  const { system, knowledge, ...rest } = settings;
  const before = system ? [{ role: "system", content: system }] : [];
  const body = { model, messages: [...before, ...messages], ...rest, ...(knowledge ? { knowledge } : {}) };
  const answer = begun(model);
  const start = performance.now();
  let due = 0; // the next frame shows all that came until then
  const soon = () => (due = due || requestAnimationFrame(() => ((due = 0), tell({ ...answer }))));
  try {
    for await (const piece of chat(body, signal)) {
      answer.text += piece.text || "";
      answer.tokens = piece.tokens?.length ? [...answer.tokens, ...piece.tokens] : answer.tokens;
      answer.finish = piece.finish || answer.finish;
      answer.ours = piece.ours || answer.ours;
      answer.seconds = (performance.now() - start) / 1000;
      soon();
    }
  } catch (error) {
    const stopped = error instanceof DOMException && error.name === "AbortError";
    answer.finish = stopped ? "stopped" : "error";
    answer.error = stopped ? "" : /** @type {Error} */ (error).message;
  }
  cancelAnimationFrame(due);
  tell({ ...answer, finish: answer.finish || "stop" });
}

const ENDS = { length: "cut at its length", stopped: "stopped by you", tool_calls: "calls a tool", content_filter: "held back" };

/** @param {{answer: Answer, shaded: boolean, question: string}} props */
export function Shown({ answer, shaded, question }) {
  /** @type {number[]} */
  const logprobs = answer.tokens.length ? answer.tokens.map((each) => each.logprob) : answer.ours?.logprobs || [];
  const sure = logprobs.length ? Math.exp(logprobs.reduce((sum, each) => sum + each, 0) / logprobs.length) : null;
  const speed = answer.seconds > 0 ? logprobs.length / answer.seconds : 0;
  const told = [
    logprobs.length === 1 ? t("1 token") : logprobs.length ? t("{n} tokens", { n: number(logprobs.length) }) : "",
    speed ? t("{n} a second", { n: number(speed, speed < 10 ? 1 : 0) }) : "",
    sure === null ? "" : t("{p} sure a token", { p: percent(sure) }),
    answer.finish in ENDS ? t(ENDS[/** @type {keyof typeof ENDS} */ (answer.finish)]) : "",
  ].filter(Boolean);
  const body = shaded && answer.tokens.length
    ? html`<${Tokens} tokens=${answer.tokens} label=${t("The answer, token by token. Use the arrow keys.")} />`
    : html`<${Markdown} text=${answer.text} />`;
  return html`<div class="answer" aria-busy=${!answer.finish}>
    ${answer.text || answer.tokens.length ? body : answer.finish ? null : html`<p class="thinking" aria-label=${t("Thinking")}><i></i><i></i><i></i></p>`}
    ${answer.finish && !answer.text && !answer.error ? html`<p class="soft">${t("It said nothing.")}</p>` : null}
    ${answer.error ? html`<p class="trouble" role="alert">${answer.error}</p>` : null}
    <${Behind} ours=${answer.ours} question=${question} answer=${answer.text} />
    ${answer.finish && told.length ? html`<p class="told">${told.join(" · ")}</p>` : null}
  </div>`;
}

/** What a mend did on the way. @param {{ours: any, question: string, answer: string}} props */
function Behind({ ours, question, answer }) {
  if (!ours) return null;
  const { passages = [], calls = [], withheld } = ours;
  return html`
    ${calls.length ? html`<ul class="calls" aria-label=${t("Tool calls")}>${calls.map(
      (/** @type {any} */ call) => html`<li><span class="tag">${t("calculator")}</span> <code>${call.expression} = ${call.result}</code></li>`,
    )}</ul>` : null}
    ${withheld ? html`<p class="soft">${t("Withheld: {text}", { text: typeof withheld === "string" ? withheld : "" })}</p>` : null}
    ${passages.length ? html`<details class="cited" open><summary>${t("Passages it read")} <span class="count">${passages.length}</span></summary>
      <ol>${passages.map((/** @type {any} */ each) => html`<li><${Passage} passage=${each} question=${question} answer=${answer} /></li>`)}</ol></details>` : null}`;
}

/** @param {{passage: any, question: string, answer: string}} props */
function Passage({ passage, question, answer }) {
  const [whole, show] = useState(false);
  const long = passage.text.length > 320;
  const text = whole || !long ? passage.text : `${passage.text.slice(0, 320)}…`;
  return html`<p class="source">${passage.id}</p><p>${marks(text, question, answer)}</p>
    ${long ? html`<button type="button" class="quiet" onClick=${() => show(!whole)}>${whole ? t("Less") : t("More")}</button>` : null}`;
}

const WORD = /[\p{L}\p{N}]+/gu;
const COMMON = new Set("a an and are as at been but by did does for from had has have her his how in into its not of on or she that the their them then there they this was were what when where which who will with you".split(" "));
const HAN = /\p{Script=Han}/u;

/** The words of a text, in lower case; Chinese by pairs of characters. @param {string} text */
function words(text) {
  const found = new Set();
  for (const [run] of text.toLowerCase().matchAll(WORD)) {
    if (!HAN.test(run)) {
      if (!COMMON.has(run)) found.add(run);
    } else for (let i = 0; i + 1 < run.length; i++) found.add(run.slice(i, i + 2));
  }
  return found;
}

/** A passage with the words that the answer or the question shares with it. @param {string} text @param {string} question @param {string} answer */
function marks(text, question, answer) {
  const said = words(answer);
  const asked = words(question);
  const parts = [];
  let last = 0;
  for (const match of text.matchAll(/\p{Script=Han}{2}|[\p{L}\p{N}]+/gu)) {
    const word = match[0].toLowerCase();
    const kind = said.has(word) ? "said" : asked.has(word) ? "asked" : "";
    if (!kind) continue;
    parts.push(text.slice(last, match.index), html`<mark class=${kind}>${match[0]}</mark>`);
    last = match.index + match[0].length;
  }
  return [...parts, text.slice(last)];
}
