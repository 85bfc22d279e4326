// Which words of a question an answer rests on, and how far that explanation is to be believed.
import { html, useState } from "../vendor/preact.js";
import { post } from "./api.js";
import { Choose, Empty, Trouble, able } from "./parts.js";
import { number, t } from "./words.js";

/** @param {{models: import("./parts.js").Model[]}} props */
export function Explain({ models }) {
  const readers = models.filter((model) => able(model, "score"));
  const [model, choose] = useState(readers[0]?.id || "");
  const [state, set] = useState(/** @type {{value?: any, error?: string, busy?: boolean}} */ ({}));
  if (!readers.length) return html`<${Empty}><p>${t("No model here tells log-probabilities of a given text.")}</p></${Empty}>`;
  const send = async (/** @type {any} */ event) => {
    event.preventDefault();
    const { question, answer } = event.target.elements;
    set({ busy: true });
    const body = { model, messages: [{ role: "user", content: question.value }], answer: answer.value || undefined };
    await post("/v1/explain", body).then((value) => set({ value }), (error) => set({ error: error.message }));
  };
  return html`<section class="explain" aria-labelledby="explain-title"><h1 id="explain-title">${t("Explain")}</h1>
    <p class="soft">${t("Each word is left out in turn: the less likely the answer then, the hotter the word.")}</p>
    <form class="stack" onSubmit=${send}>
      <${Choose} id="explain-model" label=${t("Model")} models=${readers} value=${model} onChange=${choose} />
      <label>${t("Question")}<textarea name="question" rows="3" required maxlength="4000"></textarea></label>
      <label>${t("Answer")} <small>${t("left empty: what the model answers")}</small><input name="answer" maxlength="1000" /></label>
      <button type="submit" class="primary" disabled=${state.busy}>${state.busy ? t("Working…") : t("Explain")}</button>
    </form>
    ${state.error ? html`<${Trouble} text=${state.error} />` : null}
    ${state.value ? html`<${Heat} told=${state.value} />` : null}</section>`;
}

/** @param {{told: any}} props */
function Heat({ told }) {
  const most = Math.max(...told.words.map((/** @type {any} */ word) => Math.abs(word.heat)), 1e-9);
  const { hottest, random } = told.faithfulness;
  const good = hottest > random.high;
  let last = 0;
  const parts = told.words.flatMap((/** @type {any} */ word) => {
    const before = told.text.slice(last, word.start);
    last = word.end;
    return [before, html`<span class=${word.heat < 0 ? "heat against" : "heat"} style=${{ "--heat": (Math.abs(word.heat) / most).toFixed(3) }}
      title=${t("{n} nats", { n: number(word.heat, 2) })}>${told.text.slice(word.start, word.end)}</span>`];
  });
  const ranked = [...told.words].sort((a, b) => b.heat - a.heat).slice(0, 8);
  return html`<div class="told-why" role="status"><p class="heats">${parts}${told.text.slice(last)}</p>
    <p class="said"><span class="soft">${t("Answer")}</span> ${told.answer}</p>
    <p class=${good ? "verdict better" : "verdict"}>${good ? t("Faithful") : t("Not shown to be faithful")}</p>
    <p class="soft">${t("Without its {count} hottest words the answer loses {hot} nats; without as many at random {mean} [{low} … {high}].", {
      count: told.faithfulness.count, hot: number(hottest, 2), mean: number(random.mean, 2), low: number(random.low, 2), high: number(random.high, 2) })}</p>
    <table class="small"><caption>${t("The hottest words")}</caption><thead><tr><th scope="col">${t("Word")}</th><th scope="col">${t("Nats lost without it")}</th></tr></thead>
      <tbody>${ranked.map((word) => html`<tr><th scope="row">${told.text.slice(word.start, word.end)}</th><td class="figure">${number(word.heat, 2)}</td></tr>`)}</tbody></table></div>`;
}
