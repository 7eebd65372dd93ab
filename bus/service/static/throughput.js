/** The figures at the top of a run: its last loss and metrics, its pace, and what observing it costs. */

import { h, say } from "./dom.js";
import { count, duration, finite, number, rate } from "./format.js";
import { validatedName } from "./wording.js";

/** @typedef {import("./api.js").LineEvent} LineEvent */
/** @typedef {import("./api.js").Summary} Summary */

const WINDOW = 5_000; // milliseconds that "now" is

export class Throughput {
  constructor() {
    /** @type {{time: number, rank: number, samples: number, seconds: number, step: number | undefined}[]} batches; of those that train the optimizer's steps, of which several batches may make one */
    this.steps = [];
    /** @type {{time: number, count: number}[]} */
    this.events = [];
    /** @type {{time: number, seconds: number}[]} */
    this.waits = [];
    this.speed = 0; // samples a second, for runs that are over
    this.isOfRank = false; // whether that is of one rank alone
    this.of = "last epoch"; // what that speed is of
    this.stepSeconds = 0;
    /** @type {LineEvent | null} */
    this.fit = null;
    /** @type {number | null} */
    this.loss = null;
    /** @type {Record<string, unknown>} the mean losses of a validation alone */
    this.evaluated = {};
    /** @type {number | null} */
    this.cost = null;
    /** @type {Map<string, {element: HTMLElement, value: HTMLElement}>} */
    this.tiles = new Map();
    this.element = h("dl", { class: "tiles" });
  }

  /**
   * @param {LineEvent[]} events
   * @param {boolean} isLive whether they come as they happen
   */
  take(events, isLive) {
    for (const event of events) {
      const time = Date.parse(event.time);
      if (event.type === "TrainBatchEnd" || event.type === "PredictBatchEnd" || event.type === "ValBatchEnd") {
        if (isLive) this.steps.push({ time, rank: event.rank, samples: event.batch_size, seconds: event.seconds ?? 0, step: event.step });
        if (event.type === "TrainBatchEnd" && !event.rank && saysLoss(event)) this.loss = event.loss;
      } else if (event.type === "TrainBatchStart" && isLive && !event.rank) {
        this.waits.push({ time, seconds: event.data_seconds });
      } else if (event.type === "TrainEpochEnd" && !event.rank) {
        this.speed = event.speed;
        this.isOfRank = true;
        this.of = "last epoch";
        this.stepSeconds = event.batches ? event.duration / event.batches : 0;
        if (!isLive) this.loss = event.losses.loss ?? this.loss;
      } else if (event.type === "FitEpochEnd") {
        this.fit = event;
      } else if (event.type === "PredictEnd" || (event.type === "ValEnd" && !event.aside && !this.stepSeconds)) {
        if (!event.rank) this.evaluated = event.losses ?? {};
        this.speed = (event.inputs ?? event.samples) / event.duration;
        this.isOfRank = false;
        this.of = `${count(event.inputs ?? event.samples)} in ${duration(event.duration)}`;
      }
    }
    const newest = events[events.length - 1];
    if (isLive && newest) this.events.push({ time: Date.parse(newest.time), count: events.length });
  }

  /** @param {Summary} summary */
  paint(summary) {
    const isRunning = summary.state === "running";
    const now = this.events[this.events.length - 1]?.time ?? 0;
    const fresh = (/** @type {{time: number}} */ { time }) => time > now - WINDOW;
    this.steps = this.steps.filter(fresh);
    this.events = this.events.filter(fresh);
    this.waits = this.waits.filter(fresh);
    if (this.loss !== null) this.tile("loss", number(this.loss));
    const isAlone = summary.kind === "val"; // what it found is not to be told apart from what a training says
    const found = isAlone ? { ...summary.metrics, ...this.evaluated } : summary.metrics;
    for (const [name, value] of Object.entries(found).slice(0, isAlone ? 8 : 4)) {
      this.tile(`of ${name}`, number(value), name === "loss" ? "" : this.best(value), isAlone ? name : validatedName(name, this.fit?.losses));
    }
    const own = this.steps.filter(({ rank }) => !rank);
    const [first] = own;
    const span = first ? (now - first.time) / 1000 : 0;
    const isPaced = isRunning && span > 0.2 && own.length > 2;
    if (isPaced) {
      const samples = this.steps.reduce((sum, step) => sum + step.samples, 0);
      const trained = own.map(({ step }) => step).filter((step) => step !== undefined);
      const done = (trained[trained.length - 1] ?? 0) - (trained[0] ?? 0);
      const pace = trained.length ? `${rate(Math.max(done, 0) / span)} steps/s` : `${rate(own.length / span)} batches/s`;
      this.tile("samples", `${rate(samples / span)}/s`, pace);
      const times = own.map(({ seconds }) => seconds).sort((a, b) => a - b);
      const median = times[times.length >> 1] ?? 0;
      const waited = this.waits.reduce((sum, { seconds }) => sum + seconds, 0);
      if (median) this.tile("step", duration(median), this.waits.length ? `${Math.round((100 * waited) / span)} % data wait` : "");
      this.tile("events", `${rate(this.events.slice(1).reduce((sum, batch) => sum + batch.count, 0) / span)}/s`, `${count(summary.events)} in all`);
    } else {
      const speed = this.speed * (this.isOfRank ? Math.max(summary.ranks, 1) : 1); // the ranks keep pace
      if (speed) this.tile("samples", `${rate(speed)}/s`, this.of);
      if (this.stepSeconds) this.tile("step", duration(this.stepSeconds), "last epoch");
      this.tile("events", count(summary.events), "in all");
    }
    if (this.cost !== null) {
      const step = this.stepSeconds ? `${((this.cost / 1e4) / this.stepSeconds).toPrecision(2)} % of a step` : "";
      this.tile("observing", duration(this.cost / 1e6), step || "a step");
    }
  }

  /** @param {unknown} value of a metric */
  best(value) {
    const { fit } = this;
    if (!fit || fit.fitness === null || fit.fitness !== value) return "";
    return fit.best_epoch === fit.epoch ? "best so far" : `best ${number(fit.best_fitness)}, epoch ${fit.best_epoch + 1}`;
  }

  /**
   * @param {string} name
   * @param {string} said
   * @param {string} [more]
   * @param {string} [title] what it is called on the page, by what is known by now
   */
  tile(name, said, more = "", title = name) {
    let tile = this.tiles.get(name);
    if (!tile) {
      const value = h("dd", {}, h("b", {}), h("small", {}));
      tile = { element: h("div", { class: "tile" }, h("dt"), value), value };
      this.tiles.set(name, tile);
      const after = [...this.tiles].filter(([other]) => place(other) > place(name)).sort(([a], [b]) => place(a) - place(b))[0];
      this.element.insertBefore(tile.element, after?.[1].element ?? null);
    }
    const term = /** @type {HTMLElement} */ (tile.element.children[0]);
    term.title = title;
    say(term, title);
    const [big, small] = tile.value.children;
    if (big) say(big, said);
    if (small) say(small, more);
  }
}

/**
 * Whether it has a loss, be it lost: a loop of one's own that logs other values only has none, and says nan.
 * @param {LineEvent} event of a batch
 */
function saysLoss({ loss, losses }) {
  return finite(loss) !== null || "loss" in losses || Object.values(losses).some((value) => finite(value) === null);
}

/** The order of the tiles: how well, then how fast, then at what cost. */
const LAST = ["samples", "step", "events", "observing"];

/** @param {string} name of a tile */
const place = (name) => (name === "loss" ? 0 : 2 + LAST.indexOf(name)); // metrics have 1
