// Talk with one model.
import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { Shown, USUAL, ask, begun } from "./answer.js";
import { Choose, Composer, Empty, able, useGet } from "./parts.js";
import { t } from "./words.js";

/** @typedef {import("./parts.js").Model} Model */

const EXAMPLES = ["What is the capital of France?", "What is 17 * 23?", "用一句话介绍你自己。"];

/** @param {{models: Model[]}} props */
export function Chat({ models }) {
  const writers = models.filter((model) => able(model, "generate"));
  const [model, choose] = useState(writers[0]?.id || "");
  const [turns, setTurns] = useState(/** @type {any[]} */ ([]));
  const [settings, set] = useState(USUAL);
  const [shaded, shade] = useState(false);
  const [stop, setStop] = useState(/** @type {AbortController | null} */ (null));
  const end = useRef(/** @type {any} */ (null));
  useEffect(() => end.current?.scrollIntoView({ block: "end" }), [turns]);
  if (!writers.length) return html`<${Empty}><p>${t("No model here writes text.")}</p></${Empty}>`;

  const send = async (/** @type {string} */ text) => {
    const asked = [...turns, { role: "user", text }];
    const control = new AbortController();
    setStop(control);
    setTurns([...asked, begun(model)]);
    const messages = asked.filter((turn) => !turn.error).map((turn) => ({ role: turn.role, content: turn.text }));
    await ask(model, messages, settings, control.signal, (answer) => setTurns([...asked, answer]));
    setStop(null);
  };
  const clear = () => (stop?.abort(), setTurns([]));
  return html`<section class="talk" aria-labelledby="talk-title">
    <h1 id="talk-title" class="unseen">${t("Chat")}</h1>
    <div class="bar">
      <${Choose} id="chat-model" label=${t("Model")} models=${writers} value=${model} onChange=${choose} />
      <label class="switch"><input type="checkbox" checked=${shaded} onChange=${() => shade(!shaded)} /> ${t("Show how sure it is")}</label>
      <${Tuning} settings=${settings} set=${set} />
      ${turns.length ? html`<button type="button" class="quiet" onClick=${clear}>${t("New chat")}</button>` : null}
    </div>
    <div class="turns" role="log" aria-label=${t("Conversation")}>
      ${turns.length ? turns.map((turn, index) => html`<article class=${turn.role}>
        <h2 class="unseen">${turn.role === "user" ? t("You") : turn.model}</h2>
        ${turn.role === "user" ? html`<p class="asked">${turn.text}</p>`
          : html`<${Shown} answer=${turn} shaded=${shaded} question=${turns[index - 1].text} />`}
      </article>`) : html`<${Welcome} send=${send} model=${model} />`}
      <div ref=${end}></div>
    </div>
    <${Composer} id="chat-text" label=${t("Your message")} placeholder=${t("Write a message")} busy=${stop !== null} onSend=${send} onStop=${() => stop?.abort()} />
  </section>`;
}

/** @param {{send: (text: string) => void, model: string}} props */
function Welcome({ send, model }) {
  return html`<div class="welcome"><p class="lead">${t("Ask {model} anything.", { model })}</p>
    <p class="soft">${t("Nothing leaves this server. What it says may be wrong: see how sure it is, token by token.")}</p>
    <ul>${EXAMPLES.map((text) => html`<li><button type="button" class="example" onClick=${() => send(text)}>${text}</button></li>`)}</ul></div>`;
}

/** @param {{settings: import("./answer.js").Settings, set: (settings: any) => void}} props */
export function Tuning({ settings, set }) {
  const bases = useGet("/v1/knowledge").value?.data || [];
  const change = (/** @type {string} */ name, /** @type {any} */ value) => set({ ...settings, [name]: value });
  const numeric = (/** @type {string} */ name, /** @type {string} */ label, /** @type {any} */ limits) => html`<label>${label}
    <input type="number" ...${limits} value=${/** @type {any} */ (settings)[name]} onChange=${(/** @type {any} */ event) =>
      event.target.checkValidity() && event.target.value !== "" && change(name, Number(event.target.value))} /></label>`;
  return html`<details class="tuning"><summary>${t("Settings")}</summary><div class="sheet">
    ${numeric("temperature", t("Temperature"), { min: 0, max: 2, step: 0.1 })}
    ${numeric("top_p", t("Top p"), { min: 0.01, max: 1, step: 0.01 })}
    ${numeric("max_tokens", t("Most tokens"), { min: 1, max: 4096, step: 1 })}
    ${numeric("seed", t("Seed"), { min: 0, max: 2 ** 31 - 1, step: 1 })}
    <label class="wide">${t("System message")}<textarea rows="2" value=${settings.system} onChange=${(/** @type {any} */ event) => change("system", event.target.value.trim())}></textarea></label>
    ${bases.length ? html`<label class="wide">${t("Knowledge base")}<select value=${settings.knowledge} onChange=${(/** @type {any} */ event) => change("knowledge", event.target.value)}>
      <option value="">${t("none")}</option>${bases.map((/** @type {any} */ each) => html`<option value=${each.id}>${each.id}</option>`)}</select></label>` : null}
  </div></details>`;
}
