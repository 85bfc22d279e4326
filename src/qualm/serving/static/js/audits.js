// The records of audits and proofs: every limit with its interval, every mend against every limit, down to the cases.
import { html, useEffect, useState } from "../vendor/preact.js";
import { file, get, key } from "./api.js";
import { Cases } from "./cases.js";
import { difference, figure, interval } from "./figures.js";
import { Drawer, Empty, Trouble, useGet } from "./parts.js";
import { t } from "./words.js";

const GLYPH = { better: "▲", worse: "▼", "cannot tell": "○" };
const SHOWN = 24; // records read at once

export function Audits() {
  const { value, error } = useGet("/v1/audits");
  if (error) return html`<${Trouble} text=${error} />`;
  if (!value) return html`<p class="soft" role="status">${t("Loading")}</p>`;
  const records = value.data;
  const proofs = records.filter((/** @type {any} */ each) => each.object === "proof");
  const sides = new Set(proofs.flatMap((/** @type {any} */ each) => [`${each.id}:before`, `${each.id}:after`]));
  const audits = records.filter((/** @type {any} */ each) => each.object === "audit" && !sides.has(each.id));
  return html`<section class="audits" aria-labelledby="audits-title"><h1 id="audits-title">${t("Audits")}</h1>
    ${records.length ? null : html`<${Empty}><p>${t("No record lies here.")}</p>
      <pre class="command">qualm audit MODEL -o runs/audit
qualm serve MODEL --audits runs</pre></${Empty}>`}
    ${proofs.length ? html`<${Matrix} proofs=${proofs.slice(0, SHOWN)} />` : null}
    ${audits.map((/** @type {any} */ each) => html`<${Audit} key=${each.id} told=${each} />`)}
  </section>`;
}

/** Every mend against every limit. @param {{proofs: any[]}} props */
function Matrix({ proofs }) {
  const [read, set] = useState(/** @type {any[]} */ ([]));
  const [error, fail] = useState("");
  const [chosen, choose] = useState(/** @type {any} */ (null));
  useEffect(() => {
    Promise.all(proofs.map((proof) => get(`/v1/audits/${encodeURIComponent(proof.id)}`))).then(set, (failure) => fail(failure.message));
  }, [proofs.map((proof) => proof.id).join()]);
  if (error) return html`<${Trouble} text=${error} />`;
  if (!read.length) return html`<p class="soft" role="status">${t("Loading")}</p>`;
  const limits = [...new Set(read.flatMap((proof) => proof.changes.map((/** @type {any} */ change) => change.name)))];
  const name = (/** @type {any} */ proof) => proof.mend?.name || t("a change");
  return html`<section aria-labelledby="matrix-title"><h2 id="matrix-title">${t("What each mend did to each limit")}</h2>
    <p class="legend"><span class="better">${GLYPH.better} ${t("better")}</span><span class="worse">${GLYPH.worse} ${t("worse")}</span>
      <span>${GLYPH["cannot tell"]} ${t("cannot tell")}</span><span>– ${t("not measured")}</span></p>
    <div class="scroll" tabindex="0" role="group" aria-labelledby="matrix-title"><table class="matrix">
      <thead><tr><th scope="col">${t("Limit")}</th>${read.map((proof) => html`<th scope="col">${name(proof)}<small>${proof.before.subject}</small>
        ${proofs.find((each) => each.id === proof.id)?.report ? html`<a href=${`#/report/${encodeURIComponent(proof.id)}`}>${t("report")}</a>` : null}</th>`)}</tr></thead>
      <tbody>${limits.map((limit) => html`<tr><th scope="row">${t(limit)}</th>${read.map((proof) => {
        const change = proof.changes.find((/** @type {any} */ each) => each.name === limit);
        return html`<td><${Cell} change=${change} claim=${proof.mend?.mends?.includes(change?.limit)} open=${() => choose({ proof, change })} /></td>`;
      })}</tr>`)}</tbody></table></div>
    ${chosen ? html`<${Drawer} title=${`${name(chosen.proof)}: ${t(chosen.change.name)}`} onClose=${() => choose(null)}>
      <${Change} change=${chosen.change} /><${Cases} sides=${[`${chosen.proof.id}:before`, `${chosen.proof.id}:after`]} probe=${chosen.change.name} /></${Drawer}>` : null}
  </section>`;
}

/** @param {{change: any, claim: boolean, open: () => void}} props */
function Cell({ change, claim, open }) {
  if (!change || change.difference === null) return html`<span class="none" title=${change?.why || ""}>–</span>`;
  const verdict = /** @type {keyof typeof GLYPH} */ (change.verdict);
  const told = `${t(verdict)}: ${difference(change.difference, change.unit)}`;
  return html`<button type="button" class=${`cell ${verdict.replace(" ", "-")}${claim ? " claim" : ""}`} onClick=${open} aria-label=${`${t(change.name)}, ${told}. ${t("Show the cases")}`}>
    <span aria-hidden="true">${GLYPH[verdict]}</span> ${difference(change.difference, change.unit)}</button>`;
}

/** @param {{change: any}} props */
function Change({ change }) {
  const rows = [
    [t("Before"), `${figure(change.before.value, change.unit)} ${interval(change.before, change.unit)}`],
    [t("After"), `${figure(change.after.value, change.unit)} ${interval(change.after, change.unit)}`],
    [t("Difference"), `${difference(change.difference, change.unit)} ${interval(change, change.unit, true)}`],
    [t("Verdict"), t(change.verdict)],
    [t("Cases"), t("{n} in {groups} groups; {fixed} fixed, {broken} broken", change)],
    change.verdict === "cannot tell" && change.detectable !== null ? [t("Would have shown"), `${figure(change.detectable, change.unit)}`] : null,
  ];
  return html`<dl class="facts">${rows.filter((row) => row !== null).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

/** One audit: a row a limit. @param {{told: any}} props */
function Audit({ told }) {
  const { value, error } = useGet(`/v1/audits/${encodeURIComponent(told.id)}`);
  const [chosen, choose] = useState("");
  if (error) return html`<${Trouble} text=${error} />`;
  if (!value) return html`<p class="soft" role="status">${t("Loading")}</p>`;
  return html`<section aria-label=${`${told.subject}, ${told.id}`}><h2>${told.subject} <small>${told.id}</small></h2>
    ${told.report ? html`<p><a href=${`#/report/${encodeURIComponent(told.id)}`}>${t("Open the full report")}</a></p>` : null}
    <div class="scroll" tabindex="0" role="group" aria-label=${told.subject}><table class="limits"><thead><tr><th scope="col">${t("Limit")}</th>
      <th scope="col">${t("Reading")}</th><th scope="col" class="figure">${t("95% interval")}</th><th scope="col" class="figure">${t("Guessing")}</th><th scope="col">${t("Cases")}</th></tr></thead>
      <tbody>${value.measurements.map((/** @type {any} */ each) => html`<tr><th scope="row">${t(each.name)} <small>${each.better === "high" ? "↑" : "↓"}</small></th>
        ${each.reading ? html`<td><${Reading} each=${each} /></td><td class="figure">${interval(each.reading, each.unit)}</td>
          <td class="figure">${each.chance === null ? "–" : figure(each.chance, each.unit)}</td>
          <td><button type="button" class="quiet" onClick=${() => choose(each.name)}>${t("{n} cases", { n: each.cases })}</button></td>`
          : html`<td colspan="4" class="soft">${t("Not measured")}: ${each.why}</td>`}</tr>`)}</tbody></table></div>
    ${chosen ? html`<${Drawer} title=${t(chosen)} onClose=${() => choose("")}><${Cases} sides=${[told.id]} probe=${chosen} /></${Drawer}>` : null}
  </section>`;
}

/** @param {{each: any}} props */
function Reading({ each }) {
  const { value, low, high } = each.reading;
  const bar = each.unit === "share"
    ? html`<span class="reading" aria-hidden="true"><i style=${{ left: `${100 * low}%`, width: `${100 * (high - low)}%` }}></i><b style=${{ left: `${100 * value}%` }}></b></span>`
    : null;
  return html`<span class="value">${figure(value, each.unit)}</span>${bar}`;
}

/** The page that lies beside a record, in a frame without rights. @param {{id: string}} props */
export function Report({ id }) {
  const path = `/v1/audits/${encodeURIComponent(id)}/report`;
  const [error, fail] = useState("");
  const save = () => file(path, `${id.replace(/[^\w.-]/g, "-")}.html`).catch((failure) => fail(failure.message));
  return html`<section class="report"><div class="bar"><a href="#/audits">← ${t("Audits")}</a>
      <button type="button" class="quiet" onClick=${save}>${t("Save the report")}</button></div>
    ${error ? html`<${Trouble} text=${error} />` : null}
    ${key() ? html`<p class="soft">${t("Behind a key a report cannot be shown in a frame: save it and open the file.")}</p>`
      : html`<iframe title=${t("Report")} sandbox="allow-scripts" src=${path}></iframe>`}</section>`;
}
