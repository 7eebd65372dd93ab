/** The stages of a run in swim-lanes: when it trained, validated, saved, predicted and exported, and how long in all. */

import { at, get } from "./api.js";
import { colour, h, painter, panel, say } from "./dom.js";
import { clock, duration } from "./format.js";

/** @typedef {import("./api.js").LineEvent} LineEvent */
/** @typedef {import("./api.js").Span} Span */

const LANES = ["train", "val", "save", "predict", "export"];
const ROW = 24;
const AXIS = 20;
const NICE = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 604800];

export class Timeline {
  /** @param {string} run */
  constructor(run) {
    this.run = run;
    this.abort = new AbortController();
    /** @type {Span[]} */
    this.spans = [];
    this.loaded = false;
    /** @type {LineEvent[]} */
    this.waiting = [];
    this.newest = 0;
    this.heard = 0; // when the newest event came, on this machine's clock
    this.isRunning = false;
    /** @type {[number, number] | null} what is zoomed into */
    this.window = null;
    /** @type {number | null} */
    this.dragged = null;
    this.pointer = 0;
    const all = h("button", { class: "button", type: "button", hidden: true, onclick: () => this.zoom(null) }, "show all");
    this.all = all;
    const { element, body, note } = panel("Stages", "timeline", all);
    this.element = element;
    this.note = note;
    this.labels = h("ul", { class: "lanes" });
    this.canvas = h("canvas", { tabIndex: 0, role: "img" });
    this.tip = h("div", { class: "tip", hidden: true });
    this.stage = h("div", { class: "stage" }, this.canvas, this.tip);
    this.empty = h("p", { class: "empty" }, "Reading the stages …");
    body.append(this.empty, this.labels, this.stage);
    this.painter = painter(() => this.paint());
    this.resizing = new ResizeObserver(() => this.paint());
    this.resizing.observe(this.stage);
    this.listen();
  }

  close() {
    this.abort.abort();
    this.painter.stop();
    this.resizing.disconnect();
  }

  async load() {
    try {
      /** @type {{spans: Span[]}} */
      const { spans } = await get(`${at(this.run)}/timeline`, {}, this.abort.signal);
      // Of two that begin together the longer one first: the other one lies on it.
      this.spans = spans.sort((a, b) => a.begin - b.begin || (b.end ?? Infinity) - (a.end ?? Infinity));
      this.loaded = true;
      for (const span of spans) this.newest = Math.max(this.newest, span.end ?? span.begin);
      this.take(this.waiting.splice(0));
      this.empty.textContent = "No stage has begun yet.";
      this.paint();
    } catch (error) {
      if (!this.abort.signal.aborted) this.empty.textContent = error instanceof Error ? error.message : String(error);
    }
  }

  /** @param {LineEvent[]} events */
  take(events) {
    if (!this.loaded) {
      this.waiting.push(...events);
      return;
    }
    for (const event of events) {
      const time = Date.parse(event.time);
      if (time >= this.newest) [this.newest, this.heard] = [time, Date.now()];
      if (!event.rank) this.one(event, time);
    }
    if (events.length) this.painter.ask();
  }

  /**
   * @param {LineEvent} event
   * @param {number} time
   */
  one(event, time) {
    const took = (event.duration ?? 0) * 1000;
    switch (event.type) {
      case "TrainEpochStart":
      case "ValStart":
        return this.begin(event.type === "ValStart" ? "val" : "train", time, `epoch ${event.epoch + 1}`);
      case "PredictStart":
        return this.begin("predict", time, "");
      case "TrainEpochEnd":
      case "ValEnd":
        return this.end(event.type === "ValEnd" ? "val" : "train", time, `epoch ${event.epoch + 1}`);
      case "PredictEnd":
        return this.end("predict", time);
      case "ModelSave":
        this.begin("save", time - took, `epoch ${event.epoch + 1}`);
        return this.end("save", time);
      case "ExportPhase":
        this.begin("export", time - took, `${event.phase} ${event.format}`);
        return this.end("export", time);
      case "RunEnd":
        for (const lane of LANES) this.end(lane, time);
        return undefined;
      default:
        return undefined;
    }
  }

  /**
   * @param {string} lane
   * @param {number} begin
   * @param {string} label
   */
  begin(lane, begin, label) {
    // What came while the service was asked may be in its answer already, whose times are whole milliseconds.
    if (this.spans.some((span) => span.lane === lane && Math.abs(span.begin - begin) < 2)) return;
    this.end(lane, begin);
    this.spans.push({ lane, begin, end: null, label });
  }

  /**
   * @param {string} lane
   * @param {number} end
   * @param {string} [label] of the span that ends; none: whichever is open
   */
  end(lane, end, label) {
    const open = this.spans.findLast((span) => span.lane === lane && span.end === null);
    // Where the next one is open already, it came with the answer of the service, and so did this end.
    if (open && (label ?? open.label) === open.label) open.end = Math.max(end, open.begin);
  }

  /** The run's time by now: what was heard last, and what passed since. */
  get now() {
    return this.isRunning && this.heard ? this.newest + Math.min(Date.now() - this.heard, 60_000) : this.newest;
  }

  /** @returns {[number, number]} */
  get whole() {
    let begin = Infinity;
    for (const span of this.spans) begin = Math.min(begin, span.begin);
    return [begin, Math.max(this.now, begin + 1)];
  }

  /** @param {[number, number] | null} window */
  zoom(window) {
    const [begin, end] = this.whole;
    if (window) {
      const length = Math.min(Math.max(window[1] - window[0], 2), end - begin);
      const from = Math.min(Math.max(window[0], begin), end - length);
      window = length >= end - begin ? null : [from, from + length];
    }
    this.window = window;
    this.all.hidden = !window;
    this.paint();
  }

  listen() {
    const { canvas } = this;
    const timeAt = (/** @type {number} */ x) => {
      const [begin, end] = this.window ?? this.whole;
      return begin + ((end - begin) * x) / Math.max(canvas.clientWidth, 1);
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "touch") return; // a finger scrolls the page
      this.dragged = event.offsetX;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      this.pointer = event.offsetX;
      if (this.dragged === null) this.hover(event.offsetX, event.offsetY, timeAt(event.offsetX));
      else this.painter.ask();
    });
    canvas.addEventListener("pointerup", (event) => {
      const from = this.dragged;
      this.dragged = null;
      if (from !== null && Math.abs(event.offsetX - from) > 5) {
        const [a, b] = [timeAt(from), timeAt(event.offsetX)];
        this.zoom([Math.min(a, b), Math.max(a, b)]);
      } else this.paint();
    });
    canvas.addEventListener("pointerleave", () => {
      this.tip.hidden = true;
    });
    canvas.addEventListener("dblclick", () => this.zoom(null));
    canvas.addEventListener("keydown", (event) => {
      const [begin, end] = this.window ?? this.whole;
      const length = end - begin;
      /** @type {Record<string, [number, number] | null>} */
      const keys = {
        ArrowLeft: [begin - length / 5, end - length / 5],
        ArrowRight: [begin + length / 5, end + length / 5],
        "+": [begin + length / 4, end - length / 4],
        "=": [begin + length / 4, end - length / 4],
        "-": [begin - length / 2, end + length / 2],
        0: null,
      };
      if (!(event.key in keys) || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      this.zoom(keys[event.key] ?? null);
    });
  }

  /** The lanes that have something in them. */
  get lanes() {
    return LANES.filter((lane) => this.spans.some((span) => span.lane === lane));
  }

  /**
   * @param {number} x
   * @param {number} y
   * @param {number} time
   */
  hover(x, y, time) {
    const lane = this.lanes[Math.floor(y / ROW)];
    const [begin, end] = this.window ?? this.whole;
    const slack = ((end - begin) / Math.max(this.canvas.clientWidth, 1)) * 2;
    const span = this.spans.findLast((one) => one.lane === lane && one.begin - slack <= time && (one.end ?? this.now) + slack >= time);
    this.tip.hidden = !span;
    if (!span) return;
    const took = ((span.end ?? this.now) - span.begin) / 1000;
    say(this.tip, [span.lane, span.label, duration(took) + (span.end === null ? " so far" : ""), `from ${clock(span.begin)}`].filter(Boolean).join(" · "));
    this.tip.style.setProperty("--x", `${Math.min(x, this.canvas.clientWidth - this.tip.offsetWidth)}px`);
    this.tip.style.setProperty("--y", `${y}px`);
  }

  paint() {
    const { lanes } = this;
    this.empty.hidden = lanes.length > 0;
    this.stage.hidden = this.labels.hidden = lanes.length === 0;
    if (!lanes.length) return;
    this.sum(lanes);
    const width = this.stage.clientWidth;
    const height = lanes.length * ROW + AXIS;
    const ratio = devicePixelRatio || 1;
    const { canvas } = this;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.setProperty("height", `${height}px`);
    }
    const pen = canvas.getContext("2d");
    if (!pen || width < 10) return;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = "11px system-ui, sans-serif";
    this.axis(pen, width, lanes.length * ROW);
    for (const [row, lane] of lanes.entries()) this.lane(pen, lane, row * ROW, width);
    if (this.dragged !== null) {
      pen.fillStyle = colour("select");
      pen.fillRect(Math.min(this.dragged, this.pointer), 0, Math.abs(this.pointer - this.dragged), lanes.length * ROW);
    }
  }

  /** @param {string[]} lanes */
  sum(lanes) {
    const items = lanes.map((lane) => {
      let total = 0;
      let until = -Infinity; // what lies on another one takes no time of its own
      for (const span of this.spans) {
        if (span.lane !== lane) continue;
        const end = span.end ?? this.now;
        total += Math.max(end - Math.max(span.begin, until), 0);
        until = Math.max(until, end);
      }
      return /** @type {const} */ ([lane, total / 1000]);
    });
    if (this.labels.children.length !== items.length) {
      this.labels.replaceChildren(...items.map(([lane]) => h("li", { "data-lane": lane }, h("span", {}, lane), h("b", {}))));
    }
    items.forEach(([lane, total], row) => {
      const [name, time] = this.labels.children[row]?.children ?? [];
      if (name) say(name, lane);
      if (time) say(time, duration(total));
    });
    const [begin, end] = this.whole;
    say(this.note, `${duration((end - begin) / 1000)} in all`);
    this.canvas.setAttribute("aria-label", `Time by stage: ${items.map(([lane, total]) => `${lane} ${duration(total)}`).join(", ")}`);
  }

  /**
   * @param {CanvasRenderingContext2D} pen
   * @param {number} width
   * @param {number} bottom
   */
  axis(pen, width, bottom) {
    const [begin, end] = this.window ?? this.whole;
    const [zero] = this.whole;
    const seconds = (end - begin) / 1000;
    const step = NICE.find((nice) => (nice / seconds) * width >= 72) ?? seconds;
    pen.textBaseline = "alphabetic";
    for (let tick = Math.ceil((begin - zero) / 1000 / step) * step; tick * 1000 + zero <= end; tick += step) {
      const x = ((tick * 1000 + zero - begin) / (end - begin)) * width;
      pen.fillStyle = colour("grid");
      pen.fillRect(Math.round(x), 0, 1, bottom);
      const label = tick === 0 ? "0" : duration(Number(tick.toFixed(3)));
      if (x + pen.measureText(label).width / 2 > width) continue;
      pen.fillStyle = colour("muted");
      pen.textAlign = x < 12 ? "left" : "center";
      pen.fillText(label, x, bottom + 14);
    }
    pen.fillStyle = colour("line");
    pen.fillRect(0, bottom, width, 1);
  }

  /**
   * @param {CanvasRenderingContext2D} pen
   * @param {string} lane
   * @param {number} top
   * @param {number} width
   */
  lane(pen, lane, top, width) {
    const [begin, end] = this.window ?? this.whole;
    const fill = colour(`lane-${lane}`);
    let drawn = -Infinity; // right edge of what is painted: thousands of spans may share a pixel
    pen.textBaseline = "middle";
    pen.textAlign = "left";
    const spans = this.spans.filter((span) => span.lane === lane);
    for (const [index, span] of spans.entries()) {
      const over = span.end ?? this.now;
      if (over < begin || span.begin > end) continue;
      const next = spans[index + 1];
      const isWhole = !!next && next.begin < over && (next.end ?? this.now) <= over; // its parts are drawn in its place
      const left = Math.max(((span.begin - begin) / (end - begin)) * width, 0);
      const right = Math.min(((over - begin) / (end - begin)) * width, width);
      const wide = Math.max(right - left, 1.25);
      if (wide < 2 && right <= drawn + 0.25) continue;
      pen.globalAlpha = span.end === null ? 0.6 : 1;
      pen.fillStyle = fill;
      if (isWhole) {
        pen.fillRect(left, top + ROW - 4, wide - 1, 1.5);
        continue;
      }
      if (wide > 5) {
        pen.beginPath();
        pen.roundRect(left, top + 4, wide - 1, ROW - 8, 2.5);
        pen.fill();
      } else pen.fillRect(left, top + 4, Math.max(wide - 0.5, 1), ROW - 8);
      pen.globalAlpha = 1;
      drawn = Math.max(drawn, left + wide);
      const label = [span.label, span.label.replace(/^epoch /, "")].find((text) => wide > pen.measureText(text).width + 12);
      if (label) {
        pen.fillStyle = colour("on-lane");
        pen.fillText(label, left + 6, top + ROW / 2 + 0.5);
      }
    }
  }
}
