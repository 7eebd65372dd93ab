/** What observing costs the loop, and how each subscription keeps up: known where the run's own bus is in reach. */

import { at, get } from "./api.js";
import { h, panel, say } from "./dom.js";
import { count, duration } from "./format.js";

/**
 * @typedef {object} Stats
 * @property {string} name
 * @property {string} lane
 * @property {string} state
 * @property {number} delivered
 * @property {number} failed
 * @property {number} missed
 * @property {number} lag
 * @property {number} seconds
 */

/** @typedef {{subscriptions: Stats[] | null, microseconds_per_step: number | null, steering: import("./steering.js").Going | null}} Found */

const AGAIN = 900; // milliseconds between two looks

export class Observing {
  /**
   * @param {string} run
   * @param {(found: Found) => void} tell
   * @param {() => boolean} isGoing
   */
  constructor(run, tell, isGoing) {
    this.run = run;
    this.isGoing = isGoing;
    this.tell = tell;
    this.abort = new AbortController();
    this.asked = -Infinity;
    this.isKnown = true;
    const { element, body, note } = panel("Observing", "observing");
    this.element = element;
    this.note = note;
    this.rows = h("tbody");
    const heads = ["subscription", "delivered", "lag", "missed", "failed", "each"];
    const numbers = heads.map((head, index) => h("th", { scope: "col", class: index ? "number" : "" }, head));
    this.table = h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ...numbers)), this.rows));
    this.table.hidden = true;
    this.empty = h("p", { class: "empty" }, "…");
    body.append(this.empty, this.table);
  }

  close() {
    this.abort.abort();
  }

  /** Look again, if the last look was a while ago. */
  ask() {
    this.element.hidden = !this.isGoing(); // of a run that is over, nothing is observed
    if (this.isKnown && !this.element.hidden && performance.now() - this.asked > AGAIN) void this.load();
  }

  async load() {
    this.asked = performance.now();
    try {
      /** @type {Found} */
      const found = await get(`${at(this.run)}/observing`, {}, this.abort.signal);
      const { subscriptions, microseconds_per_step: cost } = found;
      this.tell(found);
      say(this.note, cost === null ? "" : `${duration(cost / 1e6)} a step`);
      this.isKnown = subscriptions !== null;
      if (subscriptions) this.show(subscriptions);
      else this.empty.replaceChildren("Known only where the training process serves this page itself: ", h("code", {}, 'app.mount("/lineside", service(bus))'), ".");
    } catch {
      // it stays as it was; the next look tries again
    }
  }

  /** @param {Stats[]} subscriptions */
  show(subscriptions) {
    this.empty.hidden = subscriptions.length > 0;
    this.empty.textContent = "Nobody subscribes.";
    this.table.hidden = subscriptions.length === 0;
    this.rows.replaceChildren(...subscriptions.map((stats) => {
      const cell = (/** @type {string} */ text, /** @type {boolean} */ isBad) => h("td", { class: isBad ? "number bad" : "number" }, text);
      const calls = stats.delivered + stats.failed;
      return h("tr", {},
        h("th", { scope: "row" }, stats.name, h("small", {}, stats.lane), stats.state !== "active" && h("em", {}, ` ${stats.state}`)),
        cell(count(stats.delivered), false),
        cell(count(stats.lag), stats.lag > 1000),
        cell(count(stats.missed), stats.missed > 0),
        cell(count(stats.failed), stats.failed > 0),
        cell(calls ? duration(stats.seconds / calls) : "–", false),
      );
    }));
  }
}
