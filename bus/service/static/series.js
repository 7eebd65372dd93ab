/** The numbers behind the curves of one run: down-sampled by the service, and what came since, from events. */

import { at, get } from "./api.js";
import { finite } from "./format.js";

/** @typedef {import("./api.js").LineEvent} LineEvent */
/** @typedef {import("./api.js").Points} Points */

/**
 * @typedef {object} Series
 * @property {number[]} step
 * @property {number[]} time milliseconds
 * @property {(number | null)[]} value
 * @property {(number | null)[]} min
 * @property {(number | null)[]} max
 * @property {number} fresh how many points at the end came from events
 * @property {unknown} newest the newest value as it was, which may be no finite number
 */

const POINTS = 1000;
const MOST_FRESH = 2000; // then the service is asked again, which thins them out
const TOGETHER = 40; // series in one request: an address has to stay short

export class RunSeries {
  /** @param {string} run */
  constructor(run) {
    this.run = run;
    /** @type {Map<string, Series>} */
    this.series = new Map();
    this.loaded = false;
    /** @type {LineEvent[] | null} events that came while the service was asked */
    this.waiting = null;
    this.step = 0;
    /** @type {number | null} of the newest event; null: none came yet */
    this.attempt = null;
    this.epoch = 0; // that of the newest batch
  }

  /**
   * @param {AbortSignal} signal
   * @returns {Promise<void>}
   */
  async load(signal) {
    if (this.waiting) return;
    this.waiting = [];
    try {
      const path = `${at(this.run)}/metrics`;
      /** @type {{names: string[]}} */
      const { names } = await get(path, {}, signal);
      /** @type {Map<string, Series>} */
      const series = new Map();
      for (let from = 0; from < names.length; from += TOGETHER) {
        /** @type {{series: Record<string, Points>}} */
        const answer = await get(path, { series: names.slice(from, from + TOGETHER), points: POINTS }, signal);
        for (const [name, points] of Object.entries(answer.series)) series.set(name, made(points));
      }
      this.series = series;
      this.loaded = true;
      for (const { step } of series.values()) this.step = Math.max(this.step, step[step.length - 1] ?? 0);
    } finally {
      const events = this.waiting ?? [];
      this.waiting = null;
      for (const event of events) this.take(event);
    }
  }

  /**
   * Ask for the points between two steps, more closely.
   * @param {number} from
   * @param {number} to
   * @param {AbortSignal} signal
   */
  async look(from, to, signal) {
    const names = [...this.series.keys()];
    for (let first = 0; first < names.length; first += TOGETHER) {
      const query = { series: names.slice(first, first + TOGETHER), points: POINTS, from: Math.floor(from), to: Math.ceil(to) };
      /** @type {{series: Record<string, Points>}} */
      const answer = await get(`${at(this.run)}/metrics`, query, signal);
      for (const [name, points] of Object.entries(answer.series)) {
        const series = this.series.get(name);
        const close = made(points);
        if (series && close.step.length) this.series.set(name, inserted(series, close));
      }
    }
  }

  /**
   * The steps that were done between two times.
   * @param {number} from seconds since the first point
   * @param {number} to
   * @returns {[number, number]}
   */
  steps(from, to) {
    const [longest] = [...this.series.values()].sort((a, b) => b.time.length - a.time.length);
    const { step = [], time = [] } = longest ?? {};
    const { begin } = this;
    const before = time.findLastIndex((at) => at < begin + from * 1000);
    const after = time.findIndex((at) => at > begin + to * 1000);
    return [step[before] ?? 0, step[after] ?? this.step];
  }

  /** Time of the first point, in milliseconds. */
  get begin() {
    return Math.min(...[...this.series.values()].map((series) => series.time[0] ?? Infinity));
  }

  /** Whether there is so much from events that it should be thinned out. */
  get crowded() {
    for (const { fresh } of this.series.values()) if (fresh > MOST_FRESH) return !this.waiting;
    return false;
  }

  /** @param {LineEvent} event of rank 0 */
  take(event) {
    if (this.waiting) this.waiting.push(event);
    if (!this.loaded) return;
    const time = Date.parse(event.time);
    if (event.type === "TrainBatchEnd") this.resumed(event.attempt, time, event.step);
    switch (event.type) {
      case "TrainBatchEnd":
        this.step = event.step;
        this.epoch = event.epoch;
        this.add("loss", time, event.loss);
        this.add("step_seconds", time, event.seconds);
        this.addAll("loss/", time, event.losses);
        this.addAll("lr/", time, event.lr);
        break;
      case "TrainEpochEnd":
        this.step = event.step;
        this.addAll("train/", time, event.losses);
        break;
      case "ValEnd":
        if (event.aside) break; // somebody asked for it in between
        // After the last epoch the best weights are evaluated once more, which is no further point of the curves: where
        // they are of an earlier epoch that is known by it, and else by the validation that was told at this step.
        if (event.epoch < this.epoch) break;
        this.addAll("val/", time, this.untold(event.metrics, "val/"));
        this.addAll("val_loss/", time, this.untold(event.losses, "val_loss/"));
        if (event.fitness !== null) this.addAll("", time, this.untold({ fitness: event.fitness }, ""));
        break;
      case "FitEpochEnd": // what a loop of the user's own found; of ours, ValEnd has told it already
        if (!event.final) this.addAll("val/", time, this.untold(event.metrics, "val/", "val_loss/"));
        break;
      default:
    }
  }

  /**
   * A later attempt does steps again that an earlier one did in vain: those are not drawn.
   * @param {number} attempt
   * @param {number} time
   * @param {number} step
   */
  resumed(attempt, time, step) {
    const isLater = this.attempt !== null && attempt > this.attempt;
    this.attempt = attempt;
    const loss = this.series.get("loss");
    const last = (loss?.step.length ?? 0) - 1;
    if (!loss || last < 0 || step > (loss.step[last] ?? 0) || (!isLater && time <= (loss.time[last] ?? 0))) return;
    if (!isLater && step === loss.step[last]) return; // several batches make one step
    for (const series of this.series.values()) {
      const first = series.step.findIndex((other) => other >= step);
      if (first < 0) continue;
      for (const column of [series.step, series.time, series.value, series.min, series.max]) column.length = first;
      series.fresh = Math.min(series.fresh, first);
    }
  }

  /**
   * @param {Record<string, unknown>} values
   * @param {...string} prefixes of the series that may have them
   * @returns {Record<string, unknown>} those of them that were not told at this step
   */
  untold(values, ...prefixes) {
    const isTold = (/** @type {string} */ name) => this.series.get(name)?.step.at(-1) === this.step;
    return Object.fromEntries(Object.entries(values).filter(([name]) => !prefixes.some((prefix) => isTold(prefix + name))));
  }

  /**
   * @param {string} prefix
   * @param {number} time
   * @param {Record<string, unknown>} values
   */
  addAll(prefix, time, values) {
    for (const [name, value] of Object.entries(values)) this.add(prefix + name, time, value);
  }

  /**
   * @param {string} name
   * @param {number} time
   * @param {unknown} value
   */
  add(name, time, value) {
    let series = this.series.get(name);
    if (!series) this.series.set(name, (series = { step: [], time: [], value: [], min: [], max: [], fresh: 0, newest: null }));
    if (!series.fresh) {
      // The answer of the service and the events that came meanwhile overlap; from then on no event comes twice.
      const last = series.step.length - 1;
      const before = series.time[last] ?? -Infinity;
      if (time < before || (time === before && this.step <= (series.step[last] ?? 0))) return;
    }
    const number = finite(value);
    series.newest = value;
    series.step.push(this.step);
    series.time.push(time);
    series.value.push(number);
    series.min.push(number);
    series.max.push(number);
    series.fresh += 1;
  }
}

/**
 * @param {Points} points
 * @returns {Series}
 */
function made({ step, time, value, min, max, newest }) {
  return { step, time, value: value.map(finite), min: min.map(finite), max: max.map(finite), fresh: 0, newest };
}

/**
 * @param {Series} series
 * @param {Series} close some of its points, closer together
 * @returns {Series} with those in place of its own between the same steps
 */
function inserted(series, close) {
  const from = close.step[0] ?? 0;
  const to = close.step[close.step.length - 1] ?? 0;
  const first = series.step.findIndex((step) => step >= from);
  const after = series.step.findIndex((step) => step > to);
  const head = first < 0 ? series.step.length : first;
  const tail = after < 0 ? series.step.length : after;
  /** @param {"step" | "time" | "value" | "min" | "max"} name */
  const join = (name) => /** @type {any[]} */ ([...series[name].slice(0, head), ...close[name], ...series[name].slice(tail)]);
  return { step: join("step"), time: join("time"), value: join("value"), min: join("min"), max: join("max"), newest: series.newest, fresh: Math.min(series.fresh, series.step.length - tail) };
}

/**
 * An exponential mean over what is drawn. How far it reaches is a share of the whole, so that the same setting looks
 * the same for few points and for many.
 * @param {number[]} x
 * @param {(number | null)[]} y
 * @param {number} smoothing 0 to 1
 * @returns {(number | null)[]}
 */
export function smooth(x, y, smoothing) {
  if (smoothing <= 0 || x.length < 3) return y;
  const unit = Math.max(((x[x.length - 1] ?? 0) - (x[0] ?? 0)) / 400, Number.MIN_VALUE);
  let sum = 0;
  let weight = 0;
  let before = x[0] ?? 0;
  return y.map((value, index) => {
    if (value === null) return null;
    const here = x[index] ?? 0;
    const kept = smoothing ** Math.max((here - before) / unit, 0);
    before = here;
    sum = sum * kept + value;
    weight = weight * kept + 1;
    return sum / weight;
  });
}
