// Two models on the same question, side by side: one as it was and one mended, say.
import { html, useState } from "../vendor/preact.js";
import { Shown, USUAL, ask, begun } from "./answer.js";
import { Tuning } from "./chat.js";
import { Choose, Composer, Empty, able } from "./parts.js";
import { t } from "./words.js";

/** @param {{models: import("./parts.js").Model[]}} props */
export function Compare({ models }) {
  const writers = models.filter((model) => able(model, "generate"));
  const [sides, choose] = useState([writers[0]?.id || "", (writers[1] || writers[0])?.id || ""]);
  const [question, ask_] = useState("");
  const [answers, setAnswers] = useState(/** @type {any[]} */ ([]));
  const [settings, set] = useState(USUAL);
  const [shaded, shade] = useState(true);
  const [stop, setStop] = useState(/** @type {AbortController | null} */ (null));
  if (!writers.length) return html`<${Empty}><p>${t("No model here writes text.")}</p></${Empty}>`;

  const send = async (/** @type {string} */ text) => {
    const control = new AbortController();
    const now = sides.map(begun);
    ask_(text);
    setStop(control);
    setAnswers([...now]);
    const messages = [{ role: "user", content: text }];
    await Promise.all(sides.map((model, side) => ask(model, messages, settings, control.signal, (answer) => {
      now[side] = answer;
      setAnswers([...now]);
    })));
    setStop(null);
  };
  const swap = (/** @type {number} */ side, /** @type {string} */ id) => choose(sides.map((each, i) => (i === side ? id : each)));
  const same = answers.length === 2 && answers.every((answer) => answer.finish && !answer.error) && answers[0].text === answers[1].text;
  return html`<section class="beside" aria-labelledby="beside-title">
    <h1 id="beside-title">${t("Side by side")}</h1>
    <p class="soft">${t("The same question to two models: one as it was and one mended, or any two.")}</p>
    <div class="bar"><label class="switch"><input type="checkbox" checked=${shaded} onChange=${() => shade(!shaded)} /> ${t("Show how sure it is")}</label>
      <${Tuning} settings=${settings} set=${set} /></div>
    <${Composer} id="compare-text" label=${t("Your question")} placeholder=${t("Ask both")} busy=${stop !== null} onSend=${send} onStop=${() => stop?.abort()} />
    ${question ? html`<p class="asked">${question}</p>` : null}
    ${same ? html`<p class="soft" role="status">${t("Both say the same.")}</p>` : null}
    <div class="sides">${sides.map((model, side) => html`<article aria-label=${model}>
      <${Choose} id=${`side-${side}`} label=${side ? t("After") : t("Before")} models=${writers} value=${model} onChange=${(/** @type {string} */ id) => swap(side, id)} />
      ${answers[side] ? html`<${Shown} answer=${answers[side]} shaded=${shaded} question=${question} />` : html`<p class="soft">${t("Its answer will stand here.")}</p>`}
    </article>`)}</div>
  </section>`;
}
