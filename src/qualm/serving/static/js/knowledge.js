// Knowledge bases: drop files, ask, and see which passages the answer rests on.
import { html, useRef, useState } from "../vendor/preact.js";
import { drop, remove } from "./api.js";
import { Shown, USUAL, ask, begun } from "./answer.js";
import { Choose, Composer, Empty, Trouble, able, useGet } from "./parts.js";
import { number, t } from "./words.js";

const FIRST = "library";

/** @param {{models: import("./parts.js").Model[]}} props */
export function Knowledge({ models }) {
  const writers = models.filter((model) => able(model, "generate"));
  const { value, error, again } = useGet("/v1/knowledge");
  const [chosen, choose] = useState("");
  if (error) return html`<${Trouble} text=${error} />`;
  if (!value) return html`<p class="soft" role="status">${t("Loading")}</p>`;
  const base = value.data.find((/** @type {any} */ each) => each.id === chosen) || value.data[0];
  return html`<section class="library" aria-labelledby="library-title"><h1 id="library-title">${t("Knowledge")}</h1>
    <p class="soft">${t("Drop documents here and ask about them. Passages that bear on a question are read before it, and cited.")}</p>
    <${Drop} base=${base?.id || FIRST} again=${again} />
    ${base ? html`<${Base} base=${base} again=${again} />` : null}
    ${value.data.length > 1 ? html`<label class="choose" for="base"><span>${t("Knowledge base")}</span><select id="base" onChange=${(/** @type {any} */ event) => choose(event.target.value)}>
      ${value.data.map((/** @type {any} */ each) => html`<option value=${each.id} selected=${each.id === base.id}>${each.id}</option>`)}</select></label>` : null}
    ${base && writers.length ? html`<${Asking} models=${writers} base=${base.id} />` : null}
  </section>`;
}

/** @param {{base: string, again: () => void}} props */
function Drop({ base, again }) {
  const [over, hover] = useState(false);
  const [told, tell] = useState(/** @type {{name: string, error: string}[]} */ ([]));
  const [busy, work] = useState("");
  const input = useRef(/** @type {any} */ (null));
  const take = async (/** @type {File[]} */ files) => {
    /** @type {{name: string, error: string}[]} */
    const failed = [];
    for (const file of files) {
      work(file.name);
      await drop(base, file).catch((error) => failed.push({ name: file.name, error: error.message }));
    }
    work("");
    tell(failed);
    again();
  };
  const dropped = (/** @type {DragEvent} */ event) => {
    event.preventDefault();
    hover(false);
    take([...(event.dataTransfer?.files || [])]);
  };
  return html`<div class=${over ? "drop over" : "drop"} onDragOver=${(/** @type {Event} */ event) => (event.preventDefault(), hover(true))}
      onDragLeave=${() => hover(false)} onDrop=${dropped}>
    <p>${busy ? t("Reading {name}…", { name: busy }) : t("Drop files here, or")}
      ${" "}<button type="button" class="plain" onClick=${() => input.current.click()} disabled=${Boolean(busy)}>${t("choose some")}</button></p>
    <p class="soft">.txt .md .jsonl .csv .html .pdf .docx .epub</p>
    <input ref=${input} type="file" multiple class="unseen" tabindex="-1" aria-label=${t("Files to add")} onChange=${() => (take([...input.current.files]), (input.current.value = ""))} />
    <div role="status">${told.map((each) => html`<p class="trouble">${each.name}: ${each.error}</p>`)}</div>
  </div>`;
}

/** @param {{base: any, again: () => void}} props */
function Base({ base, again }) {
  const gone = (/** @type {string} */ path) => remove(path).then(again, again);
  const at = `/v1/knowledge/${encodeURIComponent(base.id)}`;
  return html`<ul class="files" aria-label=${t("Files in {name}", { name: base.id })}>${base.files.map((/** @type {any} */ file) => html`<li>
      <span>${file.name}</span> <small>${t(file.passages === 1 ? "1 passage" : "{n} passages", { n: number(file.passages) })}</small>
      <button type="button" class="quiet" aria-label=${t("Take out {name}", { name: file.name })} onClick=${() => gone(`${at}/${encodeURIComponent(file.name)}`)}>×</button></li>`)}</ul>`;
}

/** @param {{models: import("./parts.js").Model[], base: string}} props */
function Asking({ models, base }) {
  const [model, choose] = useState(models[0].id);
  const [turn, set] = useState(/** @type {any} */ (null));
  const [stop, setStop] = useState(/** @type {AbortController | null} */ (null));
  const send = async (/** @type {string} */ text) => {
    const control = new AbortController();
    setStop(control);
    set({ text, answer: begun(model) });
    await ask(model, [{ role: "user", content: text }], { ...USUAL, knowledge: base }, control.signal, (answer) => set({ text, answer }));
    setStop(null);
  };
  return html`<div class="bar"><${Choose} id="library-model" label=${t("Model")} models=${models} value=${model} onChange=${choose} /></div>
    <${Composer} id="library-text" label=${t("Your question")} placeholder=${t("Ask about these documents")} busy=${stop !== null} onSend=${send} onStop=${() => stop?.abort()} />
    ${turn ? html`<article><p class="asked">${turn.text}</p><${Shown} answer=${turn.answer} shaded=${false} question=${turn.text} />
      ${turn.answer.finish && !turn.answer.error && !turn.answer.ours?.passages?.length ? html`<${Empty}><p>${t("No passage bears on this question: it answered from its weights alone.")}</p></${Empty}>` : null}
    </article>` : null}`;
}
