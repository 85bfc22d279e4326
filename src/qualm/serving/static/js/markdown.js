// A model's answer as markup: what it wrote is never trusted. No image, form, frame or style passes; links open elsewhere.
import { html } from "../vendor/preact.js";
import { marked } from "../vendor/marked.js";
import DOMPurify from "../vendor/purify.js";

const TAGS = "a b blockquote br code del em h3 h4 h5 h6 hr i li ol p pre s strong sub sup table tbody td th thead tr ul".split(" ");
const CLEAN = { ALLOWED_TAGS: TAGS, ALLOWED_ATTR: ["href", "align", "start"], ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i };

DOMPurify.addHook("afterSanitizeAttributes", (/** @type {Element} */ node) => {
  if (node.tagName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});
marked.use({ gfm: true, breaks: true, walkTokens: lower });

/** Headings of an answer stand below those of the page. @param {any} token */
function lower(token) {
  if (token.type === "heading") token.depth = Math.min(6, token.depth + 2);
}

/** @param {{text: string}} props */
export function Markdown({ text }) {
  const clean = DOMPurify.sanitize(String(marked.parse(text, { async: false })), CLEAN);
  return html`<div class="prose" dangerouslySetInnerHTML=${{ __html: clean }}></div>`;
}
