/** The list of runs, kept up to date by the service's stream of summaries. */

import { get } from "./api.js";
import { follow } from "./stream.js";

/** @typedef {import("./api.js").Summary} Summary */
/** @typedef {{runs?: Summary[], changed?: Summary[], state?: import("./stream.js").State, error?: string}} News whole list, or what changed in it */

/** Follows the list. `tell` is called with all of it after every (re)connection, and with what changed from then on. */
export class LiveRuns {
  /** @param {(news: News) => void} tell */
  constructor(tell) {
    this.tell = tell;
    /** @type {Map<string, Summary> | null} */
    this.known = null;
    /** @type {News} */
    this.last = { state: "connecting" };
    follow("events-of-runs", {
      take: (messages) => this.take(messages.filter(({ event }) => event === "run").map(({ data }) => data)),
      state: (state, error) => {
        this.last = { state, ...(error && { error: error.message }) };
        this.tell(this.last);
        if (state === "live") void this.load();
      },
    });
  }

  async load() {
    try {
      // The stream is open by now: what changes while this is under way is told there.
      /** @type {{runs: Summary[]}} */
      const { runs } = await get("runs");
      this.known = new Map(runs.map((summary) => [summary.run, summary]));
      this.tell({ runs });
    } catch (error) {
      this.tell({ error: error instanceof Error ? error.message : String(error) });
    }
  }

  /** @param {Summary[]} changed */
  take(changed) {
    for (const summary of changed) this.known?.set(summary.run, summary);
    if (this.known && changed.length) this.tell({ changed });
  }

  /** @returns {News[]} what somebody who comes later has to know */
  sofar() {
    return this.known ? [this.last, { runs: [...this.known.values()] }] : [this.last];
  }
}

/**
 * Follow the list in a worker that all tabs share: a browser opens six connections to a host and no more, and each tab
 * needs one for its run. Where there are no such workers, the tab follows it itself.
 * @param {(news: News) => void} tell
 */
export function liveRuns(tell) {
  if (typeof SharedWorker === "undefined") {
    new LiveRuns(tell);
    return;
  }
  const worker = new SharedWorker(new URL("./live-runs-worker.js", import.meta.url), { type: "module", name: "lineside-runs" });
  let heard = false;
  worker.onerror = () => {
    if (!heard) new LiveRuns(tell);
    heard = true;
  };
  worker.port.onmessage = ({ data }) => {
    heard = true;
    tell(data);
  };
  // The worker cannot see a tab close; one that is only set aside may come back.
  addEventListener("pagehide", () => worker.port.postMessage("bye"));
  addEventListener("pageshow", ({ persisted }) => persisted && worker.port.postMessage("hello"));
}
