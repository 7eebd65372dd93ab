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
    this.current = 0; // the epoch that began last, from 1
    this.within = 0; // share of the current one
    this.trains = false; // else it is one pass over its batches
    /** @type {Record<string, any>} */
    this.settings = {};
    /** @type {number | null} that end the run, if nothing else does before */
    this.steps = null;
    /** @type {number | null} the same */
    this.seconds = null;
    this.step = 0; // steps done
    this.elapsed = 0; // seconds of this attempt
    /** @type {{time: number, step: number} | null} the first that was heard of the attempt's training */
    this.began = null;
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
    this.elapsed = event.elapsed;
    if (event.type.startsWith("Train")) this.trains = true;
    switch (event.type) {
      case "RunStart":
        Object.assign(this, { settings: event.config ?? {}, steps: null, seconds: null, began: null });
        break;
      case "PretrainRoutineEnd": // of a trainer: in the settings of other loops a name may mean anything
        Object.assign(this, { steps: this.settings.max_steps ?? null, seconds: this.settings.max_seconds ?? null });
        break;
      case "TrainStart":
        Object.assign(this, { epochs: event.epochs, done: event.epoch, current: event.epoch, step: event.step, began: { time, step: event.step } });
        break;
      case "TrainEpochStart":
        Object.assign(this, { epochs: event.epochs, done: event.epoch, current: event.epoch + 1, within: 0, batch: 0, batches: event.batches, begun: time, doing: "training" });
        break;
      case "TrainBatchEnd":
        Object.assign(this, { done: event.epoch, current: event.epoch + 1, step: event.step, batch: event.batch + 1, batches: event.batches, doing: "training" });
        this.within = event.batches ? (event.batch + 1) / event.batches : 0;
        this.began ??= { time, step: event.step };
        break;
      case "TrainEpochEnd":
        this.step = event.step;
        break;
      case "ValStart":
        if (!this.trains) this.begun = time;
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
        Object.assign(this, { done: event.epoch + 1, current: event.epoch + 1, within: 0, batch: 0, doing: "", begun: time });
        this.lengths = [...this.lengths, event.duration].slice(-REMEMBERED);
        break;
      default:
    }
  }

  /** @returns {number | null} 0 to 1 */
  get share() {
    const { limits } = this;
    return limits.length ? Math.min(Math.max(...limits.map(({ share }) => share)), 1) : null;
  }

  /** @returns {number | null} seconds */
  get remaining() {
    const { limits } = this;
    const nearest = Math.max(...limits.map(({ share }) => share));
    if (limits.some(({ share, left }) => share === nearest && left === null)) return null; // another would promise too much time
    const known = limits.map(({ left }) => left).filter((left) => left !== null);
    return known.length ? Math.min(...known) : null;
  }

  /** @returns {{share: number, left: number | null}[]} of all that will end the run, what is done, and the seconds left */
  get limits() {
    const { epochs, steps, seconds, batches } = this;
    const found = [];
    if (epochs) found.push({ share: (this.done + this.within) / epochs, left: this.untilEpoch(epochs) });
    if (steps) found.push({ share: this.step / steps, left: this.untilStep(steps) });
    if (seconds) found.push({ share: this.elapsed / seconds, left: Math.max(seconds - this.elapsed, 0) });
    if (!this.trains && batches) found.push({ share: this.batch / batches, left: this.untilBatch(batches) });
    return found;
  }

  /** @param {number} steps */
  untilStep(steps) {
    if (!this.began || this.step <= this.began.step) return null;
    return ((this.newest - this.began.time) / 1000 / (this.step - this.began.step)) * Math.max(steps - this.step, 0);
  }

  /** @param {number} epochs */
  untilEpoch(epochs) {
    const since = (this.newest - this.begun) / 1000;
    const mean = this.lengths.length ? this.lengths.reduce((a, b) => a + b) / this.lengths.length : this.within > 0.02 ? since / this.within : null;
    // What is left of this epoch by the clock: it has a validation, too, that its batches say nothing of.
    return mean === null ? null : Math.max(mean - since, 0) + Math.max(epochs - this.done - 1, 0) * mean;
  }

  /** @param {number} batches */
  untilBatch(batches) {
    return this.batch ? ((this.newest - this.begun) / 1000 / this.batch) * (batches - this.batch) : null;
  }

  /** @param {Summary} summary */
  paint(summary) {
    const isOver = summary.state === "finished" || summary.state === "failed";
    const share = isOver && summary.outcome === "completed" ? 1 : this.share;
    if (share === null) this.bar.removeAttribute("value");
    else this.bar.value = share;
    this.bar.hidden = isOver && (share === null || share === 1); // what is whole needs no measure
    this.element.dataset.state = summary.state;
    const current = isOver ? this.current : Math.min(this.done + 1, this.epochs ?? Infinity);
    const epoch = this.trains && current ? `epoch ${count(current)}${this.epochs ? ` of ${count(this.epochs)}` : ""}` : "";
    const step = this.steps ? `step ${count(this.step)} of ${count(this.steps)}` : "";
    const batch = this.batch && !(isOver && this.trains) ? `batch ${count(this.batch)}${this.batches ? ` of ${count(this.batches)}` : ""}` : "";
    say(this.where, [epoch, step, isOver ? "" : this.doing, batch].filter(Boolean).join(" · "));
    const { remaining } = this;
    if (isOver) say(this.left, summary.duration === null ? "" : `took ${duration(summary.duration)}`);
    else if (summary.state === "stalled") say(this.left, "");
    else say(this.left, remaining === null ? "" : `${duration(Math.round(remaining))} left`);
  }
}
