// The cases behind a figure: what was asked, what was wanted, what each model said.
import { html, useEffect, useState } from "../vendor/preact.js";
import { get } from "./api.js";
import { Trouble } from "./parts.js";
import { t } from "./words.js";

const PAGE = 40;
const KINDS = ["fixed", "broken", "all"];

/**
 * @param {{sides: string[], probe: string}} props `sides`: the ids of one audit, or of those before and after
 */
export function Cases({ sides, probe }) {
  const [read, set] = useState(/** @type {any[][] | null} */ (null));
  const [error, fail] = useState("");
  const [chosen, choose] = useState("");
  const [shown, more] = useState(PAGE);
  useEffect(() => {
    Promise.all(sides.map((id) => all(id, probe))).then(set, (failure) => fail(failure.message));
  }, [sides.join(), probe]);
  if (error) return html`<${Trouble} text=${error} />`;
  if (!read) return html`<p class="soft" role="status">${t("Loading")}</p>`;
  const pairs = joined(read);
  const count = (/** @type {string} */ name) => (name === "all" ? pairs.length : pairs.filter((pair) => pair.kind === name).length);
  const kind = chosen || KINDS.find((name) => count(name)) || "all";
  const found = pairs.filter((pair) => kind === "all" || pair.kind === kind);
  return html`<div class="cases">
    ${sides.length > 1 ? html`<div class="tabs" role="group" aria-label=${t("Which cases")}>${KINDS.map(
      (name) => html`<button type="button" aria-pressed=${name === kind} onClick=${() => (choose(name), more(PAGE))}>${t(name)} <span class="count">${count(name)}</span></button>`,
    )}</div>` : null}
    ${found.length ? html`<ul>${found.slice(0, shown).map((pair) => html`<li><${Case} pair=${pair} /></li>`)}</ul>` : html`<p class="soft">${t("None.")}</p>`}
    ${found.length > shown ? html`<button type="button" class="quiet" onClick=${() => more(shown + PAGE)}>${t("More")}</button>` : null}
  </div>`;
}

/** @param {string} id @param {string} probe @returns {Promise<any[]>} */
async function all(id, probe) {
  const found = [];
  for (;;) {
    const page = await get(`/v1/audits/${encodeURIComponent(id)}/cases?probe=${encodeURIComponent(probe)}&start=${found.length}&count=500`);
    found.push(...page.data);
    if (!page.data.length || found.length >= page.total) return found;
  }
}

/** Cases of one audit, or of two by their ids. @param {any[][]} sides */
function joined([first, second]) {
  if (!second) return first.map((each) => ({ before: each, after: null, kind: "all" }));
  const after = new Map(second.map((each) => [each.id, each]));
  return first.flatMap((each) => {
    const other = after.get(each.id);
    if (!other) return [];
    const change = (other.row.value ?? 0) - (each.row.value ?? 0);
    return [{ before: each, after: other, kind: change > 0 ? "fixed" : change < 0 ? "broken" : "all" }];
  });
}

/** @param {any} prompt */
const told = (prompt) => (typeof prompt === "string" ? prompt : prompt.map((/** @type {any} */ turn) => turn.content).join("\n"));
/** @param {any} row */
const said = (row) => row.answer ?? row.why ?? Object.entries(row).map(([name, value]) => `${name} ${typeof value === "number" ? Number(value.toPrecision(4)) : value}`).join(", ");

/** @param {{pair: any}} props */
function Case({ pair: { before, after } }) {
  return html`<p class="prompt">${told(before.prompt)}</p><dl>
    ${before.target ? html`<div><dt>${t("Wanted")}</dt><dd>${before.target}</dd></div>` : null}
    <div><dt>${after ? t("Before") : t("It said")}</dt><dd>${said(before.row)}</dd></div>
    ${after ? html`<div><dt>${t("After")}</dt><dd>${said(after.row)}</dd></div>` : null}</dl>`;
}
