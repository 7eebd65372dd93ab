/** How long each rank takes for a step: who holds up the others. */

import { h, painter, panel, say } from "./dom.js";
import { duration } from "./format.js";

/** @typedef {import("./api.js").LineEvent} LineEvent */

const RECENT = 50; // steps
const APART = 0.05; // more than that above the median is said in words

export class Ranks {
  constructor() {
    /** @type {Map<number, number[]>} seconds of the latest steps */
    this.live = new Map();
    /** @type {Map<number, number>} mean seconds of the latest epoch's steps */
    this.epoch = new Map();
    /** @type {Map<number, {element: HTMLElement, bar: HTMLElement, value: HTMLElement}>} */
    this.rows = new Map();
    const { element, body, note } = panel("Ranks", "ranks");
    this.element = element;
    this.element.hidden = true;
    this.note = note;
    this.list = h("ul", { class: "ranks-list" });
    this.said = h("p", { class: "verdict" });
    body.append(this.said, this.list);
    this.painter = painter(() => this.paint(), 400);
  }

  close() {
    this.painter.stop();
  }

  /** @param {LineEvent[]} events */
  take(events) {
    for (const event of events) {
      if (event.type === "TrainBatchEnd") {
        const list = this.live.get(event.rank) ?? [];
        list.push(event.seconds);
        if (list.length > RECENT) list.shift();
        this.live.set(event.rank, list);
      } else if (event.type === "TrainEpochEnd" && event.batches) {
        this.epoch.set(event.rank, event.duration / event.batches);
      } else continue;
      this.painter.ask();
    }
  }

  paint() {
    const isLive = this.live.size > 1;
    /** @type {[number, number][]} */
    const times = isLive ? [...this.live].map(([rank, list]) => [rank, median(list)]) : [...this.epoch];
    this.element.hidden = times.length < 2;
    if (times.length < 2) return;
    times.sort(([a], [b]) => a - b);
    const longest = Math.max(...times.map(([, seconds]) => seconds));
    const middle = median(times.map(([, seconds]) => seconds));
    for (const [rank, seconds] of times) {
      let row = this.rows.get(rank);
      if (!row) {
        row = { element: h("li"), bar: h("i"), value: h("b") };
        row.element.append(h("span", {}, `rank ${rank}`), h("span", { class: "track" }, row.bar), row.value);
        this.rows.set(rank, row);
        const after = [...this.rows].filter(([other]) => other > rank).sort(([a], [b]) => a - b)[0];
        this.list.insertBefore(row.element, after?.[1].element ?? null);
      }
      row.bar.style.setProperty("--part", String(seconds / longest));
      row.element.dataset.slow = String(seconds > middle * (1 + APART));
      say(row.value, duration(seconds));
    }
    const slow = times.reduce((a, b) => (b[1] > a[1] ? b : a));
    const over = slow[1] / middle - 1;
    say(this.note, isLive ? `median of the last ${RECENT} steps` : "mean of the last epoch");
    say(this.said, over > APART ? `Rank ${slow[0]} takes ${Math.round(over * 100)} % longer than the median; the others wait for it.` : "The ranks keep pace.");
  }
}

/** @param {number[]} values */
function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1] ?? 0;
}
