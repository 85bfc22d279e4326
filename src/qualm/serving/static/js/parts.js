// Small parts that several views share.
import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { get } from "./api.js";
import { t } from "./words.js";

/** @typedef {{id: string, max_model_len?: number, meta: any, qualm: any, world?: any, root?: string}} Model */

/** What an address gives, again when `path` changes. @param {string} path @returns {{value: any, error: string, again: () => void}} */
export function useGet(path) {
  const [state, set] = useState({ path, value: /** @type {any} */ (null), error: "" });
  const [turn, again] = useState(0);
  useEffect(() => {
    const stop = new AbortController();
    get(path, { signal: stop.signal }).then(
      (value) => set({ path, value, error: "" }),
      (error) => stop.signal.aborted || set({ path, value: null, error: error.message }),
    );
    return () => stop.abort();
  }, [path, turn]);
  const now = state.path === path ? state : { value: null, error: "" }; // asked again, what was there stays till then
  return { value: now.value, error: now.error, again: () => again((/** @type {number} */ n) => n + 1) };
}

/** @param {{text: string}} props */
export const Trouble = ({ text }) => html`<p class="trouble" role="alert">${text}</p>`;

/** @param {{children?: any}} props */
export const Empty = ({ children }) => html`<div class="empty">${children}</div>`;

/**
 * @param {{label: string, models: Model[], value: string, onChange: (id: string) => void, id: string}} props
 */
export function Choose({ label, models, value, onChange, id }) {
  return html`<label class="choose" for=${id}><span>${label}</span>
    <select id=${id} value=${value} onChange=${(/** @type {any} */ event) => onChange(event.target.value)}>
      ${models.map((model) => html`<option value=${model.id} selected=${model.id === value}>${model.id}</option>`)}
    </select></label>`;
}

/**
 * A box to write in: Enter sends, Shift+Enter begins a line; an input method's Enter is its own.
 * @param {{id: string, label: string, placeholder: string, busy: boolean, onSend: (text: string) => void, onStop: () => void}} props
 */
export function Composer({ id, label, placeholder, busy, onSend, onStop }) {
  const box = useRef(/** @type {any} */ (null));
  const grow = () => {
    box.current.style.height = "auto";
    box.current.style.height = `${Math.min(box.current.scrollHeight + 2, 240)}px`;
  };
  const send = () => {
    const text = box.current.value.trim();
    if (!text || busy) return;
    box.current.value = "";
    grow();
    onSend(text);
  };
  const typed = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  };
  return html`<form class="composer" onSubmit=${(/** @type {Event} */ event) => (event.preventDefault(), send())}>
    <label class="unseen" for=${id}>${label}</label>
    <textarea id=${id} ref=${box} rows="1" placeholder=${placeholder} onInput=${grow} onKeyDown=${typed}></textarea>
    ${busy
      ? html`<button type="button" class="send" onClick=${onStop} aria-label=${t("Stop")}><span class="square"></span></button>`
      : html`<button type="submit" class="send" aria-label=${t("Send")}><span class="arrow" aria-hidden="true">↑</span></button>`}
  </form>`;
}

/** A part that opens beside the rest. @param {{title: string, onClose: () => void, children?: any}} props */
export function Drawer({ title, onClose, children }) {
  const box = useRef(/** @type {any} */ (null));
  useEffect(() => {
    const before = /** @type {HTMLElement} */ (document.activeElement);
    box.current.showModal();
    return () => before?.focus?.();
  }, []);
  const outside = (/** @type {any} */ event) => event.target === box.current && box.current.close();
  return html`<dialog class="drawer" ref=${box} aria-label=${title} onClose=${onClose} onClick=${outside}>
    <div class="drawer-in"><header><h2>${title}</h2>
    <button type="button" class="quiet" onClick=${() => box.current.close()}>${t("Close")}</button></header>${children}</div>
  </dialog>`;
}

export const able = (/** @type {Model} */ model, /** @type {string} */ ability) => model.qualm.can.includes(ability);
