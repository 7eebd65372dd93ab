/** How far a run is, and how long it will still take. */

import { h, say } from "./dom.js";
import { count, duration } from "./format.js";

/** @typedef {import("./api.js").LineEvent} LineEvent */
/** @typedef {import("./api.js").Summary} Summary */

const REMEMBERED = 3; // epochs: later ones tell more of what comes than early ones

export class Progress {
  constructor() {
    /** @type {number | null} */
    this.epochs = null;
    this.done = 0; // epochs
    this.within = 0; // share of the current one
    /** @type {number | null} that end the run, if the epochs do not before */
    this.steps = null;
    this.step = 0; // steps done
    this.began = { time: 0, step: 0 }; // the attempt
    /** @type {number | null} */
    this.batches = null;
    this.batch = 0;
    this.doing = "";
    /** @type {number[]} */
    this.lengths = [];
    this.begun = 0; // of the epoch, or of what is not made of epochs
    this.newest = 0;
    this.bar = h("progress", { max: 1, "aria-label": "Progress" });
    this.where = h("span", { class: "where" });
    this.left = h("span", { class: "left" });
    this.element = h("div", { class: "progress" }, this.bar, h("p", {}, this.where, this.left));
  }

  /** @param {LineEvent[]} events */
  take(events) {
    for (const event of events) if (!event.rank && !event.aside) this.one(event);
  }

  /** @param {LineEvent} event */
  one(event) {
    const time = Date.parse(event.time);
    this.newest = time;
    switch (event.type) {
      case "RunStart":
        this.steps = event.config?.max_steps ?? null;
        break;
      case "TrainStart":
        Object.assign(this, { epochs: event.epochs, done: event.epoch, step: event.step, began: { time, step: event.step } });
        break;
      case "TrainEpochStart":
        Object.assign(this, { epochs: event.epochs, done: event.epoch, within: 0, batch: 0, batches: event.batches, begun: time, doing: "training" });
        break;
      case "TrainBatchEnd":
        Object.assign(this, { done: event.epoch, step: event.step, batch: event.batch + 1, batches: event.batches, doing: "training" });
        this.within = event.batches ? (event.batch + 1) / event.batches : 0;
        break;
      case "TrainEpochEnd":
        this.step = event.step;
        break;
      case "ValStart":
        if (this.epochs === null) this.begun = time;
        Object.assign(this, { doing: "validating", batch: 0, batches: event.batches });
        break;
      case "PredictStart":
        Object.assign(this, { doing: "predicting", batch: 0, batches: event.batches, begun: time });
        break;
      case "ValBatchEnd":
      case "PredictBatchEnd":
        Object.assign(this, { batch: event.batch + 1, batches: event.batches });
        break;
      case "ExportStart":
        this.doing = `exporting ${event.format}`;
        break;
      case "ExportPhase":
        this.doing = `exporting ${event.format}: ${event.phase} done`;
        break;
      case "FitEpochEnd":
        if (event.final) break;
        Object.assign(this, { done: event.epoch + 1, within: 0, batch: 0, doing: "", begun: time });
        this.lengths = [...this.lengths, event.duration].slice(-REMEMBERED);
        break;
      default:
    }
  }

  /** @returns {number | null} 0 to 1 */
  get share() {
    const parts = [this.epochs && (this.done + this.within) / this.epochs, this.steps && this.step / this.steps];
    const ends = parts.filter((part) => typeof part === "number" && part > 0);
    if (this.epochs || this.steps) return Math.min(Math.max(0, ...ends), 1); // what is reached first ends it
    if (this.epochs === null && this.batches && this.doing !== "training") return this.batch / this.batches;
    return null;
  }

  /** @returns {number | null} seconds */
  get remaining() {
    const ends = [this.remainingSteps, this.remainingEpochs].filter((seconds) => seconds !== null);
    return ends.length ? Math.min(...ends) : null;
  }

  /** @returns {number | null} seconds */
  get remainingSteps() {
    const done = this.step - this.began.step;
    if (!this.steps || done <= 0) return null;
    return ((this.newest - this.began.time) / 1000 / done) * Math.max(this.steps - this.step, 0);
  }

  /** @returns {number | null} seconds; of a run without epochs for its batches */
  get remainingEpochs() {
    const since = (this.newest - this.begun) / 1000;
    if (this.epochs) {
      const mean = this.lengths.length ? this.lengths.reduce((a, b) => a + b) / this.lengths.length : this.within > 0.02 ? since / this.within : null;
      if (mean === null) return null;
      // What is left of this epoch by the clock: it has a validation, too, that its batches say nothing of.
      return Math.max(mean - since, 0) + Math.max(this.epochs - this.done - 1, 0) * mean;
    }
    if (this.batches && this.batch > 0 && this.epochs === null && !this.steps) return (since / this.batch) * (this.batches - this.batch);
    return null;
  }

  /** @param {Summary} summary */
  paint(summary) {
    const isOver = summary.state === "finished" || summary.state === "failed";
    const share = isOver && summary.outcome === "completed" ? 1 : this.share;
    if (share === null) this.bar.removeAttribute("value");
    else this.bar.value = share;
    this.bar.hidden = isOver && (share === null || share === 1); // what is whole needs no measure
    this.element.dataset.state = summary.state;
    const epoch = this.epochs ? `epoch ${Math.min(this.done + (isOver ? 0 : 1), this.epochs)} of ${count(this.epochs)}` : "";
    const batch = this.batch && !isOver ? `batch ${count(this.batch)}${this.batches ? ` of ${count(this.batches)}` : ""}` : "";
    say(this.where, [epoch, isOver ? "" : this.doing, batch].filter(Boolean).join(" · "));
    const { remaining } = this;
    if (isOver) say(this.left, summary.duration === null ? "" : `took ${duration(summary.duration)}`);
    else if (summary.state === "stalled") say(this.left, "");
    else say(this.left, remaining === null ? "" : `${duration(Math.round(remaining))} left`);
  }
}
