// An answer token by token: the paler its ground, the surer the model was. Pointing at one, or moving to it with the
// arrow keys, shows what else could have stood there.
import { html, useRef, useState } from "../vendor/preact.js";
import { percent, t } from "./words.js";

/** @typedef {import("./api.js").TokenTold} TokenTold */

/** @param {string} token */
const shown = (token) => token.replace(/\n/g, "↵\n").replace(/\t/g, "⇥");
/** How strongly it is shaded: 0 at certainty, 1 from 1 in 1,000 on. @param {number} logprob */
const doubt = (logprob) => Math.min(1, Math.max(0, -logprob / 6.9));

/** @param {{tokens: TokenTold[], label: string}} props */
export function Tokens({ tokens, label }) {
  const [at, point] = useState(-1);
  const [place, put] = useState({ left: 0, top: 0 });
  const box = useRef(/** @type {any} */ (null));
  const look = (/** @type {number} */ index) => {
    const span = box.current.querySelector(`[data-at="${index}"]`);
    if (!span) return;
    const room = box.current.getBoundingClientRect();
    const spot = span.getClientRects()[0];
    put({ left: Math.max(0, Math.min(spot.left - room.left, room.width - 232)), top: spot.bottom - room.top + 6 });
    point(index);
  };
  const moved = (/** @type {KeyboardEvent} */ event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -at, End: tokens.length - 1 - at }[event.key];
    if (event.key === "Escape") point(-1);
    if (step === undefined) return;
    event.preventDefault();
    look(Math.max(0, Math.min(tokens.length - 1, at + step)));
  };
  const over = (/** @type {any} */ event) => event.target.dataset.at && look(Number(event.target.dataset.at));
  return html`<div class="tokens" ref=${box} onMouseLeave=${() => point(-1)}>
    <p tabindex="0" role="group" aria-label=${label} aria-describedby="alternatives" onKeyDown=${moved} onMouseOver=${over}
      onClick=${over} onFocus=${() => at < 0 && look(0)} onBlur=${() => point(-1)}>${tokens.map(
        (each, index) => html`<span data-at=${index} class=${index === at ? "token here" : "token"}
          style=${{ "--doubt": doubt(each.logprob).toFixed(3) }}>${shown(each.token)}</span>`,
      )}</p>
    <div id="alternatives" class="alternatives" role="status" hidden=${at < 0 || !tokens[at]}
      style=${{ left: `${place.left}px`, top: `${place.top}px` }}>${at >= 0 && tokens[at] ? html`<${Others} told=${tokens[at]} />` : null}</div>
  </div>`;
}

/** @param {{told: TokenTold}} props */
function Others({ told }) {
  const rows = told.top_logprobs.length ? told.top_logprobs : [told];
  const inside = rows.some((row) => row.token === told.token) ? rows : [...rows, told];
  return html`<table><caption>${t("What could stand here")}</caption><tbody>${inside.map(
    (row) => html`<tr class=${row.token === told.token ? "taken" : ""}>
      <th scope="row"><code>${shown(row.token) || "∅"}</code>${row.token === told.token ? html`<span class="unseen"> ${t("taken")}</span>` : null}</th>
      <td><span class="amount"><i style=${{ width: `${100 * Math.exp(row.logprob)}%` }}></i></span></td>
      <td class="figure">${percent(Math.exp(row.logprob))}</td></tr>`,
  )}</tbody></table>`;
}
