/** One chart: several lines over one x, drawn with uPlot. */

import { colour, h, say } from "./dom.js";
import { duration, finite, number, short } from "./format.js";
import uPlot from "./vendor/uPlot.esm.js";

/**
 * @typedef {object} Line
 * @property {string} label
 * @property {string} colour of the palette, a CSS variable's name
 * @property {boolean} dashed
 * @property {number[]} x
 * @property {(number | null)[]} y
 * @property {unknown} newest the last value as it was; what is no finite number is null in y
 * @property {(number | null)[]} [raw] what was smoothed into y, drawn faintly behind it
 * @property {(number | null)[]} [low]
 * @property {(number | null)[]} [high]
 */

/**
 * @typedef {object} Look
 * @property {boolean} log
 * @property {"step" | "time"} x
 */

const FONT = "11px system-ui, sans-serif";
const together = uPlot.sync("curves");

export class Chart {
  /**
   * @param {string} title
   * @param {object} [options]
   * @param {boolean} [options.wide]
   * @param {boolean} [options.linear] never on a logarithmic scale
   * @param {(value: number) => string} [options.format]
   * @param {(isZoomed: boolean) => void} [options.zooming]
   */
  constructor(title, { wide = false, linear = false, format = number, zooming = () => {} } = {}) {
    this.title = title;
    this.zooming = zooming;
    this.linear = linear;
    this.format = format;
    this.legend = h("div", { class: "legend" });
    this.plot = h("div", { class: "plot", role: "img" });
    this.element = h("figure", { class: wide ? "chart wide" : "chart" }, h("figcaption", {}, h("h3", {}, title), this.legend), this.plot);
    /** @type {Line[]} */
    this.lines = [];
    /** @type {Look} */
    this.look = { log: false, x: "step" };
    this.zoomed = false; // all charts are at once
    this.made = "";
    /** @type {any} uPlot's types are not shipped with it */
    this.u = null;
    this.resizing = new ResizeObserver(() => this.resize());
    this.resizing.observe(this.plot);
  }

  close() {
    this.resizing.disconnect();
    this.u?.destroy();
    this.u = null;
  }

  /** Draw it anew with other colours. */
  restyle() {
    this.made = "";
    if (this.lines.length) this.draw(this.lines, this.look);
  }

  /**
   * @param {Line[]} lines
   * @param {Look} look
   */
  draw(lines, look) {
    this.lines = lines;
    this.look = look;
    const log = look.log && !this.linear;
    const tables = lines.map((line) => [
      line.x,
      ...(line.low && line.high ? [line.low, line.high] : []),
      ...(line.raw ? [line.raw] : []),
      line.y,
    ].map((column, index) => (log && index ? positive(column) : column)));
    const data = tables.length === 1 ? tables[0] : uPlot.join(tables);
    const kind = JSON.stringify([log, look.x, lines.map((line) => [line.label, line.colour, line.dashed, !!line.raw, !!line.low])]);
    if (this.made !== kind || !this.u) {
      this.made = kind;
      this.build(log, data);
    } else {
      const { window } = this;
      this.u.setData(data, !window);
      if (window) this.u.setScale("x", { min: window[0], max: window[1] }); // which fits y to it
    }
    this.read();
  }

  /**
   * @param {boolean} log
   * @param {any} data
   */
  build(log, data) {
    this.u?.destroy();
    this.zoomed = false;
    /** @type {any[]} */
    const series = [{}];
    /** @type {any[]} */
    const bands = [];
    /** @type {number[]} where the line that is read stands */
    this.columns = [];
    for (const line of this.lines) {
      const stroke = colour(line.colour);
      const plain = { spanGaps: true, points: { show: false }, stroke };
      if (line.low && line.high) {
        bands.push({ series: [series.length + 1, series.length], fill: `color-mix(in srgb, ${stroke} 14%, transparent)` });
        series.push({ ...plain, width: 0 }, { ...plain, width: 0 });
      }
      if (line.raw) series.push({ ...plain, stroke: `color-mix(in srgb, ${stroke} 28%, transparent)`, width: 1 });
      this.columns.push(series.length);
      const few = { show: (/** @type {any} */ u, /** @type {number} */ at) => u.data[at].filter(Number.isFinite).length < 3, size: 5, fill: stroke };
      series.push({ ...plain, points: few, width: 1.6, dash: line.dashed ? [5, 4] : [] });
    }
    this.keys = this.lines.map((line) => h("b", {}));
    this.place = h("span", { class: "place" });
    this.legend.replaceChildren(this.place, ...this.lines.map((line, index) => {
      if (!line.label) return h("span", {}, this.keys?.[index]); // there is but one line
      const swatch = h("i", { class: line.dashed ? "swatch dashed" : "swatch" });
      swatch.style.setProperty("--colour", `var(--${line.colour})`);
      return h("span", {}, swatch, `${line.label} `, this.keys?.[index]);
    }));
    const axis = { font: FONT, stroke: colour("muted"), grid: { stroke: colour("grid"), width: 1 }, ticks: { show: false } };
    const over = this.look.x;
    const options = {
      ...this.size(),
      padding: [6, 18, 0, 0],
      legend: { show: false },
      cursor: {
        points: { size: (/** @type {any} */ _u, /** @type {number} */ column) => (this.columns?.includes(column) ? 6 : 0) },
        drag: { x: true, y: false, dist: 6 },
        sync: { key: together.key, scales: ["x", null], setSeries: false },
        bind: {
          dblclick: (/** @type {any} */ _u, /** @type {any} */ _target, /** @type {(event: Event) => null} */ handle) =>
            (/** @type {Event} */ event) => {
              this.zooming(false);
              return handle(event);
            },
        },
      },
      scales: { x: { time: false }, y: log ? { distr: 3 } : { range: settled } },
      axes: [
        { ...axis, size: 24, gap: 4, space: 52, values: (/** @type {any} */ _u, /** @type {number[]} */ splits) => splits.map((x) => (over === "step" ? short(x) : duration(x))), incrs: over === "step" ? STEPS : SECONDS },
        { ...axis, size: width, gap: 6, space: 26, values: (/** @type {any} */ _u, /** @type {(number | null)[]} */ splits) => splits.map((y) => (y === null ? "" : this.tick(y))) },
      ],
      series,
      bands,
      hooks: {
        setCursor: [() => this.read()],
        setSelect: [(/** @type {any} */ u) => {
          if (u.select.width === 0) return;
          this.zooming(true);
        }],
      },
    };
    this.plot.replaceChildren();
    this.u = new (/** @type {any} */ (uPlot))(options, data, this.plot);
  }

  /** @returns {[number, number] | null} what of x is zoomed into */
  get window() {
    const { min, max } = this.u?.scales.x ?? {};
    return this.zoomed && typeof min === "number" ? [min, max] : null;
  }

  /** @param {unknown} value */
  said(value) {
    return typeof value === "number" ? this.format(value) : number(value);
  }

  /** @param {number} value */
  tick(value) {
    return this.format === number ? short(value) : this.format(value);
  }

  /** Say beside the title what the lines are at the pointer, or at their ends. */
  read() {
    const at = this.u?.cursor.idx;
    const x = at === null || at === undefined ? null : this.u.data[0][at];
    if (this.place) say(this.place, x === null ? "" : this.look.x === "step" ? `step ${number(x)}` : duration(x));
    this.lines.forEach((line, index) => {
      const column = this.u?.data[this.columns?.[index] ?? 0] ?? [];
      const key = this.keys?.[index];
      const value = at === null || at === undefined ? last(line) : near(column, at);
      if (key) say(key, this.said(value));
    });
    const ends = this.lines.map((line) => `${line.label} ${this.said(last(line))}`.trim());
    this.plot.setAttribute("aria-label", `${this.title} at ${this.u?.data[0].length ?? 0} points, last: ${ends.join(", ")}`);
  }

  size() {
    return { width: Math.max(this.plot.clientWidth, 120), height: Math.max(this.plot.clientHeight, 80) };
  }

  resize() {
    const { width: wide, height } = this.size();
    if (this.u && (this.u.width !== wide || this.u.height !== height)) this.u.setSize({ width: wide, height });
  }
}

const STEPS = [1, 2, 5].flatMap((n) => Array.from({ length: 10 }, (_, power) => n * 10 ** power)).sort((a, b) => a - b);
const SECONDS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 604800];

/**
 * The range of a linear scale. What is closer together than any tick could say is flat: uPlot takes six zeros or nines for
 * an error of rounding, so that a range of less than 1e-5 of its values may come out empty, with ticks without end.
 * @param {any} _u
 * @param {number | null} low
 * @param {number | null} high
 */
function settled(_u, low, high) {
  if (low === null || high === null) return [null, null];
  const isFlat = high - low < 1e-5 * Math.max(Math.abs(low), Math.abs(high));
  return /** @type {any} */ (uPlot).rangeNum(low, isFlat ? low : high, 0.1, true);
}

/** @param {(number | null)[]} column */
const positive = (column) => column.map((value) => (value !== null && value > 0 ? value : null));

/**
 * @param {any} _u
 * @param {string[] | null} values
 */
function width(_u, values) {
  const longest = Math.max(3, ...(values ?? []).map((value) => String(value).length));
  return 12 + longest * 6.2;
}

/**
 * What a line is at its end: as smooth as it is drawn, unless that is no finite number.
 * @param {Line} line
 */
const last = ({ newest, y }) => (finite(newest) === null ? newest : y[y.length - 1]);

/**
 * Lines that are joined have no value at the points of the others: the one before holds. Null is what cannot be drawn.
 * @param {(number | null | undefined)[]} column
 * @param {number} at
 */
function near(column, at) {
  for (let back = at; back >= 0 && back > at - 500; back -= 1) {
    const value = column[back];
    if (value !== undefined) return value;
  }
  return null;
}
