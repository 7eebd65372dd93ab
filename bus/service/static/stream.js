/**
 * Following a stream of server-sent events, across restarts of the service.
 *
 * Read with `fetch` rather than with an `EventSource`: that one hands out only types it was told of beforehand, and
 * users publish events of their own; it tells nobody why it was refused, and it cannot see heartbeats, hence no
 * connection that died without a word.
 */

import { Refused, request } from "./api.js";

/** @typedef {{id: string, event: string, data: any}} Message */
/** @typedef {"connecting" | "live" | "lost" | "refused"} State */

const SILENCE = 40_000; // the service says something every 15 seconds
const FIRST_PAUSE = 200;
const LONGEST_PAUSE = 2_500;
const REFUSED_PAUSE = 5_000;

/**
 * @param {string} path
 * @param {object} options
 * @param {import("./api.js").Query} [options.query]
 * @param {string} [options.after] position to go on from
 * @param {(messages: Message[]) => void} options.take called with what came, several at a time
 * @param {(state: State, error?: Refused) => void} options.state
 * @returns {{close: () => void}}
 */
export function follow(path, { query = {}, after, take, state }) {
  const whole = new AbortController();
  let position = after;

  async function once() {
    const one = new AbortController();
    const end = () => one.abort();
    whole.signal.addEventListener("abort", end);
    let watchdog = setTimeout(end, SILENCE);
    try {
      const response = await request(path, { ...query, after: position }, {
        signal: one.signal,
        headers: { Accept: "text/event-stream" },
      });
      state("live");
      const parse = parser();
      const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
      const decoder = new TextDecoder();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        clearTimeout(watchdog);
        watchdog = setTimeout(end, SILENCE);
        const messages = parse(decoder.decode(value, { stream: true }));
        for (const message of messages) if (message.id) position = message.id;
        if (messages.length) take(messages);
      }
    } finally {
      clearTimeout(watchdog);
      whole.signal.removeEventListener("abort", end);
    }
  }

  async function always() {
    let pause = FIRST_PAUSE;
    while (!whole.signal.aborted) {
      const began = performance.now();
      /** @type {Refused | undefined} */
      let refusal;
      try {
        await once();
      } catch (error) {
        if (error instanceof Refused && error.status >= 400 && error.status < 500) refusal = error;
      }
      if (whole.signal.aborted) return;
      state(refusal ? "refused" : "lost", refusal);
      if (performance.now() - began > LONGEST_PAUSE) pause = FIRST_PAUSE; // it had been there for a while
      await rest(refusal ? REFUSED_PAUSE : pause, whole.signal);
      pause = Math.min(pause * 1.6, LONGEST_PAUSE);
    }
  }

  state("connecting");
  void always();
  return { close: () => whole.abort() };
}

/**
 * Wait, but not when the network came back.
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
function rest(milliseconds, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      removeEventListener("online", end);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    addEventListener("online", end);
    signal.addEventListener("abort", end);
  });
}

/** @returns {(text: string) => Message[]} */
export function parser() {
  let rest = "";
  return (text) => {
    rest += text.includes("\r") ? text.replaceAll("\r", "") : text;
    /** @type {Message[]} */
    const messages = [];
    let begin = 0;
    for (let end = rest.indexOf("\n\n"); end >= 0; end = rest.indexOf("\n\n", begin)) {
      const message = read(rest.slice(begin, end));
      if (message) messages.push(message);
      begin = end + 2;
    }
    rest = rest.slice(begin);
    return messages;
  };
}

/**
 * @param {string} block the lines of one message
 * @returns {Message | null}
 */
function read(block) {
  let id = "";
  let event = "message";
  let data = "";
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon <= 0) continue; // a comment is a heartbeat
    const value = line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    const field = line.slice(0, colon);
    if (field === "data") data = data ? `${data}\n${value}` : value;
    else if (field === "id") id = value;
    else if (field === "event") event = value;
  }
  return id || data ? { id, event, data: data ? JSON.parse(data) : null } : null;
}
