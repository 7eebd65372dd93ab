/** The curves of a run, and of the runs laid over it: loss, metrics, learning rates, step time. */

import { Chart } from "./chart.js";
import { h, painter, panel } from "./dom.js";
import { duration } from "./format.js";
import { RunSeries, smooth } from "./series.js";
import { choose, chosen } from "./settings.js";

/** @typedef {import("./api.js").LineEvent} LineEvent */
/** @typedef {import("./api.js").Summary} Summary */
/** @typedef {{name: string, label: string, dashed?: boolean, exact?: boolean}} Part one series of a chart; exact: never smoothed */
/** @typedef {{title: string, parts: Part[], wide?: boolean, linear?: boolean, format?: (value: number) => string}} Group one chart */

export const MOST_OVERLAID = 7; // as many colours as can be told apart
const SETTLED = 200; // milliseconds after which a zoom counts
const AGAIN = 1500; // milliseconds between two looks at an overlaid run that goes on

export class Curves {
  /** @param {string} run */
  constructor(run) {
    this.abort = new AbortController();
    this.trains = true;
    this.main = new RunSeries(run);
    /** @type {Map<string, {series: RunSeries, events: number, busy: boolean, asked: number}>} */
    this.overlaid = new Map();
    /** @type {Map<string, Chart>} */
    this.charts = new Map();
    this.grid = h("div", { class: "charts" });
    this.empty = h("p", { class: "empty" }, "Reading the curves …");
    const { element, body, note } = panel("Curves", "curves", ...this.controls());
    body.append(this.empty, this.grid);
    this.element = element;
    this.note = note;
    this.painter = painter(() => this.paint());
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.looking = undefined;
  }

  controls() {
    const { log, smoothing, x } = chosen();
    const scale = h("button", { class: "button", type: "button", id: "log", "aria-pressed": String(log), title: "Logarithmic scale (l)" }, "log");
    scale.addEventListener("click", () => {
      choose({ log: !chosen().log });
      scale.setAttribute("aria-pressed", String(chosen().log));
      this.paint();
    });
    const slider = h("input", { type: "range", min: "0", max: "0.99", step: "0.01", value: String(smoothing), id: "smoothing" });
    slider.addEventListener("input", () => {
      choose({ smoothing: Number(slider.value) });
      this.paint();
    });
    const over = h("select", { id: "over", "aria-label": "Over" }, h("option", { value: "step" }, "by step"), h("option", { value: "time" }, "by time"));
    over.value = x;
    over.addEventListener("change", () => {
      choose({ x: over.value === "time" ? "time" : "step" });
      this.paint();
    });
    return [h("label", { class: "slider" }, "smooth", slider), over, scale];
  }

  async load() {
    try {
      await this.main.load(this.abort.signal);
      this.empty.textContent = "No losses or metrics yet.";
      this.paint();
    } catch (error) {
      if (!this.abort.signal.aborted) this.empty.textContent = error instanceof Error ? error.message : String(error);
    }
  }

  close() {
    this.abort.abort();
    this.painter.stop();
    clearTimeout(this.looking);
    for (const chart of this.charts.values()) chart.close();
  }

  /** @param {readonly string[]} runs to lay over the open one */
  overlay(runs) {
    for (const run of this.overlaid.keys()) if (!runs.includes(run)) this.overlaid.delete(run);
    const order = runs.slice(0, MOST_OVERLAID).map((run) => /** @type {const} */ ([
      run,
      this.overlaid.get(run) ?? { series: new RunSeries(run), events: -1, busy: false, asked: -Infinity },
    ]));
    this.overlaid = new Map(order);
    for (const [run, { series }] of order) if (!series.loaded) void this.refresh(run);
    this.paint();
  }

  /** @param {Summary} summary of any run: one that is laid over this one may have gone on */
  changed(summary) {
    const other = this.overlaid.get(summary.run);
    if (!other || other.events === summary.events) return;
    other.events = summary.events;
    if (!other.busy && performance.now() - other.asked > AGAIN) void this.refresh(summary.run);
  }

  /** @param {string} run */
  async refresh(run) {
    const other = this.overlaid.get(run);
    if (!other || other.busy) return;
    other.busy = true;
    other.asked = performance.now();
    try {
      await other.series.load(this.abort.signal);
      this.painter.ask();
    } catch {
      // it stays as it was; the next news of this run tries again
    } finally {
      other.busy = false;
    }
  }

  /** @param {LineEvent[]} events */
  take(events) {
    let some = false;
    for (const event of events) {
      if (event.rank || !/^(TrainBatchEnd|TrainEpochEnd|ValEnd|FitEpochEnd)$/.test(event.type)) continue;
      this.main.take(event);
      some = true;
    }
    if (some) this.painter.ask();
    if (this.main.crowded) void this.load();
  }

  /** @param {boolean} isZoomed */
  zoom(isZoomed) {
    for (const chart of this.charts.values()) chart.zoomed = isZoomed;
    clearTimeout(this.looking); // who zooms in several times means the last one
    this.looking = setTimeout(() => void this.look(), SETTLED);
  }

  /** What is zoomed into is asked for again, closer together; where nothing is, everything as at first. */
  async look() {
    const window = [...this.charts.values()].find((chart) => chart.window)?.window;
    const runs = [this.main, ...[...this.overlaid.values()].map(({ series }) => series)];
    try {
      await Promise.all(runs.map((series) => {
        if (!window) return series.load(this.abort.signal);
        return series.look(...(chosen().x === "step" ? window : series.steps(...window)), this.abort.signal);
      }));
      this.painter.ask();
    } catch {
      // what is there already is shown all the same
    }
  }

  restyle() {
    for (const chart of this.charts.values()) chart.restyle();
  }

  paint() {
    const { log, x } = chosen();
    const groups = grouped(this.main.series);
    this.empty.hidden = groups.length > 0;
    this.element.hidden = !this.trains && groups.length === 0; // what only predicts or exports has none
    const several = this.overlaid.size > 0;
    for (const [title, chart] of this.charts) {
      if (groups.some((group) => group.title === title)) continue;
      chart.close();
      chart.element.remove();
      this.charts.delete(title);
    }
    groups.forEach((group, index) => {
      let chart = this.charts.get(group.title);
      if (!chart) this.charts.set(group.title, (chart = new Chart(group.title, { ...group, zooming: (isZoomed) => this.zoom(isZoomed) })));
      if (this.grid.children[index] !== chart.element) this.grid.insertBefore(chart.element, this.grid.children[index] ?? null);
      const runs = [this.main, ...[...this.overlaid.values()].map(({ series }) => series)];
      chart.draw(runs.flatMap((series, place) => this.lines(group, series, place, several)), { log, x });
    });
  }

  /**
   * @param {Group} group
   * @param {RunSeries} run
   * @param {number} place its place among the runs that are shown
   * @param {boolean} several whether more than one is shown
   */
  lines(group, run, place, several) {
    const { smoothing, x } = chosen();
    const tail = run.run.split("-").pop() ?? run.run;
    const { begin } = run;
    const found = group.parts.filter(({ name }) => run.series.get(name)?.value.length);
    return found.map((part, index) => {
      const series = /** @type {import("./series.js").Series} */ (run.series.get(part.name));
      const over = x === "step" ? series.step : series.time.map((time) => (time - begin) / 1000);
      const value = part.exact ? series.value : smooth(over, series.value, smoothing);
      const isSmoothed = value !== series.value;
      const isThinned = !several && series.fresh < series.value.length && series.min.some((low, at) => low !== series.value[at]);
      const isOnly = group.parts.length === 1;
      const name = several ? (isOnly ? tail : `${tail} ${part.label}`) : isOnly ? "" : part.label;
      return {
        label: name,
        colour: `run-${several ? place : index}`,
        dashed: several && !!part.dashed,
        x: over,
        y: value,
        newest: series.newest,
        ...(isSmoothed && (!several || place === 0) && { raw: series.value }),
        ...(isThinned && { low: series.min, high: series.max }),
      };
    });
  }
}

/**
 * Which charts to draw: what belongs together in one, such as a loss in training and in validation.
 * @param {Map<string, import("./series.js").Series>} series
 * @returns {Group[]}
 */
function grouped(series) {
  const names = [...series.keys()];
  const under = (/** @type {string} */ prefix) => names.filter((name) => name.startsWith(prefix)).map((name) => name.slice(prefix.length));
  /** @type {Group[]} */
  const groups = [];
  const partsOf = (/** @type {string} */ name, /** @type {string | undefined} */ trained) => [
    ...(trained === undefined ? [] : [{ name: trained, label: "train" }]),
    { name: `val_loss/${name}`, label: "val", dashed: true },
    { name: `val/${name}`, label: "val", dashed: trained !== undefined, exact: true },
  ].filter((part) => series.has(part.name));
  const total = partsOf("loss", saysLoss(series) ? ["loss", "train/loss"].find((name) => series.has(name)) : undefined);
  if (total.length) groups.push({ title: "loss", parts: total, wide: true });
  for (const name of new Set([...under("val/"), ...under("loss/"), ...under("train/"), ...under("val_loss/")])) {
    if (name === "loss") continue; // the whole
    groups.push({ title: name, parts: partsOf(name, [`loss/${name}`, `train/${name}`].find((each) => series.has(each))) });
  }
  const isMetric = under("val/").some((name) => same(series.get(`val/${name}`)?.value, series.get("fitness")?.value));
  if (series.has("fitness") && !isMetric) groups.push({ title: "fitness", parts: [{ name: "fitness", label: "val", exact: true }] });
  const rates = under("lr/");
  if (rates.length) groups.push({ title: "learning rate", parts: rates.map((name) => ({ name: `lr/${name}`, label: name, exact: true })) });
  if (series.has("step_seconds")) {
    groups.push({ title: "step time", parts: [{ name: "step_seconds", label: "step" }], linear: true, format: duration });
  }
  return groups;
}

/**
 * Whether the batches have a loss, be it lost: a loop of one's own that logs other values only has none, and its batches say nan.
 * @param {Map<string, import("./series.js").Series>} series
 */
function saysLoss(series) {
  const others = [...series].filter(([name]) => name.startsWith("loss/"));
  const isKnown = (/** @type {import("./series.js").Series | undefined} */ one) => !!one?.value.some((value) => value !== null);
  if (["loss/loss", "train/loss", "val_loss/loss"].some((name) => series.has(name)) || isKnown(series.get("loss"))) return true;
  return !others.every(([, one]) => isKnown(one));
}

/**
 * @param {(number | null)[] | undefined} a
 * @param {(number | null)[] | undefined} b
 */
const same = (a, b) => !!a && !!b && a.length === b.length && a.every((value, at) => value === b[at]);
