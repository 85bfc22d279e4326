// What each model here is.
import { html } from "../vendor/preact.js";
import { number, t } from "./words.js";

/** @param {{models: import("./parts.js").Model[]}} props */
export function Cards({ models }) {
  return html`<section class="cards" aria-labelledby="cards-title"><h1 id="cards-title">${t("Models")}</h1>
    ${models.map((model) => html`<${Card} model=${model} />`)}</section>`;
}

/** @param {{model: import("./parts.js").Model}} props */
function Card({ model }) {
  const { family, parameters, bytes, mends, can, weights, tokenizer, template, scoring, version } = model.qualm;
  const facts = [
    [t("Family"), family],
    [t("Parameters"), parameters ? number(parameters) : "–"],
    [t("Size"), bytes ? `${number(bytes / 1e6, 1)} MB` : "–"],
    [t("Looks at"), model.max_model_len ? t("{n} tokens", { n: number(model.max_model_len) }) : "–"],
    [t("Can"), can.map((/** @type {string} */ word) => t(word)).join(", ")],
    [t("Its scores are"), scoring ? t(scoring) : "–"],
    [t("From"), model.root || "–"],
    [t("Planted world"), model.world ? t("yes") : t("no")],
    ["qualm", version],
  ];
  const hashes = [[t("Weights"), weights], [t("Tokenizer"), tokenizer], [t("Template"), template]].filter(([, hash]) => hash);
  return html`<article class="card" aria-label=${model.id}><h2>${model.id}</h2>
    ${mends.length ? html`<h3>${t("Mended by")}</h3><ol class="mends">${mends.map((/** @type {string} */ each) => html`<li><code>${each}</code></li>`)}</ol>` : null}
    <dl class="facts">${facts.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
    <details><summary>${t("Hashes")}</summary><dl class="facts">${hashes.map(([name, hash]) => html`<div><dt>${name}</dt><dd><code>${hash}</code></dd></div>`)}</dl></details>
  </article>`;
}
