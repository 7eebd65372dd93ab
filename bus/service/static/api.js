/** Asking the service. Addresses are relative to this file, so that any path prefix will do. */

/**
 * @typedef {object} Summary what `/runs` says of a run
 * @property {string} run
 * @property {"train" | "val" | "predict" | "export" | null} kind
 * @property {string | null} model
 * @property {"running" | "stalled" | "finished" | "failed"} state
 * @property {"completed" | "stopped" | "failed" | null} outcome
 * @property {string | null} reason
 * @property {{type: string, message: string, traceback?: string} | null} error
 * @property {string | null} started
 * @property {string | null} ended
 * @property {string} updated
 * @property {number | null} duration seconds
 * @property {number} attempt
 * @property {number} ranks
 * @property {number | null} epoch
 * @property {number | null} epochs
 * @property {number | null} fitness
 * @property {Record<string, number | string>} metrics
 * @property {string} host
 * @property {number} pid
 * @property {number} events
 */

/**
 * An event as it is on the wire: the envelope, and the fields of its type.
 * @typedef {{type: string, run: string, attempt: number, rank: number, seq: number, time: string, elapsed: number} & Record<string, any>} LineEvent
 */

/** @typedef {{step: number[], time: number[], value: (number | string | null)[], min: (number | string | null)[], max: (number | string | null)[], newest: number | string | null}} Points */
/** @typedef {{lane: string, begin: number, end: number | null, label: string}} Span */
/** @typedef {Record<string, string | number | readonly string[] | undefined>} Query */

const base = new URL(".", import.meta.url);

/** What the service answered instead of what was asked for; `status` 0: it did not answer. */
export class Refused extends Error {
  /**
   * @param {number} status
   * @param {string} message
   */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * @param {string} path
 * @param {Query} [query] a list becomes one parameter for each of its items
 */
export function address(path, query = {}) {
  const url = new URL(path, base);
  for (const [name, value] of Object.entries(query)) {
    if (value === undefined) continue;
    for (const item of Array.isArray(value) ? value : [value]) url.searchParams.append(name, String(item));
  }
  return url;
}

/** @param {string} run */
export const at = (run) => `runs/${encodeURIComponent(run)}`;

/**
 * @param {string} path
 * @param {Query} [query]
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export async function get(path, query, signal) {
  return (await request(path, query, { signal: signal ?? null, headers: { Accept: "application/json" } })).json();
}

/**
 * Ask for something to be done.
 * @param {string} path
 * @param {object} body
 */
export async function post(path, body) {
  await request(path, undefined, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
}

/**
 * @param {string} path
 * @param {Query | undefined} query
 * @param {RequestInit} options
 * @returns {Promise<Response>} one that is in order
 */
export async function request(path, query, options) {
  let response;
  try {
    response = await fetch(address(path, query), { cache: "no-store", ...options });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Refused(0, "The service does not answer. Is `lineside serve` still running?");
  }
  if (!response.ok) throw new Refused(response.status, await reason(response));
  return response;
}

/** @param {Response} response */
async function reason(response) {
  if (response.status === 401) return "This page needs the link with the token that `lineside serve` prints; open that one.";
  try {
    return String((await response.json()).error);
  } catch {
    return `The service answered ${response.status} ${response.statusText}`;
  }
}
