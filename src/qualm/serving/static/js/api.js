// What the server is asked. Every failure is a `Failure` with the server's own words.

/** @typedef {{token: string, logprob: number, top_logprobs: {token: string, logprob: number}[]}} TokenTold */
/** @typedef {{text?: string, tokens?: TokenTold[], finish?: string | null, ours?: any, usage?: any}} Piece */

const KEY = "qualm.key";

export class Failure extends Error {
  /** @param {string} message @param {number} status */
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

export const key = () => sessionStorage.getItem(KEY) || "";
/** @param {string} value */
export const keep = (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY));

/** @param {string} path @param {RequestInit} options */
async function asked(path, options) {
  const headers = new Headers(options.headers);
  if (key()) headers.set("authorization", `Bearer ${key()}`);
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Failure("The server does not answer.");
  }
  if (!response.ok) {
    const told = await response.json().catch(() => null);
    throw new Failure(told?.error?.message || `${response.status} ${response.statusText}`, response.status);
  }
  return response;
}

/** @param {string} path @param {RequestInit} [options] @returns {Promise<any>} */
export const get = async (path, options = {}) => (await asked(path, options)).json();

/** @param {string} path @param {any} body @param {AbortSignal} [signal] */
const posted = (path, body, signal) =>
  asked(path, { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" }, signal });

/** @param {string} path @param {any} body @param {AbortSignal} [signal] @returns {Promise<any>} */
export const post = async (path, body, signal) => (await posted(path, body, signal)).json();

/**
 * The pieces of a chat's answer, as they come.
 * @param {any} body @param {AbortSignal} signal
 * @returns {AsyncGenerator<Piece>}
 */
export async function* chat(body, signal) {
  const asks = { ...body, stream: true, stream_options: { include_usage: true }, logprobs: true, top_logprobs: 5 };
  const response = await posted("/v1/chat/completions", asks, signal);
  for await (const event of events(response)) {
    if (event.error) throw new Failure(event.error.message);
    const choice = event.choices?.[0];
    yield {
      text: choice?.delta?.content || "",
      tokens: choice?.logprobs?.content || [],
      finish: choice?.finish_reason,
      ours: choice?.qualm,
      usage: event.usage,
    };
  }
}

/** @param {Response} response @returns {AsyncGenerator<any>} */
async function* events(response) {
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const whole = held.split(/\r?\n\r?\n/);
    held = whole.pop() || "";
    for (const event of whole) {
      const data = event.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trim()).join("\n");
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

/**
 * Send a file to a knowledge base.
 * @param {string} base @param {File} file
 */
export const drop = (base, file) =>
  asked(`/v1/knowledge/${encodeURIComponent(base)}/${encodeURIComponent(file.name)}`, { method: "PUT", body: file }).then((r) => r.json());

/** @param {string} path */
export const remove = (path) => asked(path, { method: "DELETE" }).then((r) => r.json());

/** Save what an address gives as a file. @param {string} path @param {string} name */
export async function file(path, name) {
  const address = URL.createObjectURL(await (await asked(path, {})).blob());
  const link = Object.assign(document.createElement("a"), { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
