/** A run in a notebook: its state, its progress and its curves, and the buttons that steer it. One file, for anywidget. */

const BUSY_AFTER = 1500; // milliseconds without an answer
const QUIET_AFTER = 10_000; // milliseconds without a word, of a run that goes on
const SURE_FOR = 4000; // milliseconds in which a second click stops the run
const GOING = ["waiting", "running", "held", "paused", "stopping"];
const STILL = ["held", "paused"]; // it stands, and says nothing

// ---- elements. No markup is ever built from text, so nothing that an event says can become markup.

function h(tag, properties = {}, ...children) {
  const element = tag === "svg" || h.svg.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}
h.svg = new Set(["g", "path", "line", "text"]);

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function mark(element, name, value) {
  if (value === null || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** As many children as there are keys, each made once and kept while its key stays. */
function keyed(parent, kept, keys, make) {
  for (const [key, item] of kept) {
    if (keys.includes(key)) continue;
    item.element.remove();
    item.close?.();
    kept.delete(key);
  }
  keys.forEach((key, index) => {
    if (!kept.has(key)) kept.set(key, make(key));
    const { element } = kept.get(key);
    if (parent.children[index] !== element) parent.insertBefore(element, parent.children[index] ?? null);
  });
}

// ---- numbers as people read them

function number(value) {
  if (typeof value === "string") return value.replace("inf", "∞").replace("-", "−");
  if (typeof value !== "number") return "–";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e7) return value.toLocaleString("en");
  if (size >= 1e-3 && size < 10) return value.toFixed(4);
  if (size >= 10 && size < 1e5) return value.toLocaleString("en", { maximumFractionDigits: size < 100 ? 2 : 1 });
  return value.toExponential(1).replace(".0e", "e");
}

function short(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2).replace(/\.?0+e/, "e");
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`;
  return String(+value.toPrecision(4));
}

const count = (value) => value.toLocaleString("en");

function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${String(Math.floor(seconds % 60)).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

const clock = (time) => new Date(time).toLocaleTimeString("en-GB");

// ---- what is known of the run: one for each model, whatever the number of views

class Store {
  constructor(model) {
    this.model = model;
    this.views = new Set();
    this.name = Math.random().toString(36).slice(2);
    this.asked = 0;
    this.waiting = new Map(); // what was asked and not answered
    this.heard = null; // when, in this page
    this.gone = false; // there is no kernel
    this.refused = "";
    this.pinged = -Infinity; // when it was asked whether there is a kernel
    model.on("msg:custom", (message) => this.take(message));
    model.on("change:state", () => this.paint());
    model.on("comm:close", () => this.lose());
    model.on("comm_live_update", () => this.doubt());
    this.ask("state");
  }

  get state() {
    return this.model.get("state") ?? {};
  }

  get head() {
    return this.state.head ?? { state: "waiting", numbers: {}, metrics: {}, phases: [] };
  }

  get going() {
    return GOING.includes(this.head.state);
  }

  take(message) {
    this.heard = performance.now();
    this.gone = false;
    const answered = this.waiting.get(message.answer);
    if (answered) {
      clearTimeout(answered.timer);
      this.waiting.delete(message.answer);
      if (answered.what !== "state") this.refused = message.refused ?? "";
    }
    if (message.head) this.merge(message);
    this.paint();
  }

  /** In place: what is saved with the notebook is what the model holds. */
  merge({ version, head, curves }) {
    const { state } = this;
    if (version <= (state.version ?? 0) && head.run === state.head?.run) return; // it was on its way while all was sent
    const merged = { version, head, curves: state.curves ?? {} };
    let hasHole = false;
    for (const [name, { from, rows, ...about }] of Object.entries(curves)) {
      const known = merged.curves[name]?.rows ?? [];
      hasHole ||= from > 0 && version > (state.version ?? 0) + 1; // one message was sent before anybody here listened
      merged.curves[name] = { ...about, from: 0, rows: [...known.slice(0, from), ...rows] };
    }
    this.model.set("state", merged, { silent: true });
    if (hasHole) this.ask("all");
  }

  ask(what) {
    const id = `${this.name}-${(this.asked += 1)}`;
    if (what !== "all") this.waiting.set(id, { what, late: false, timer: setTimeout(() => this.unanswered(id), BUSY_AFTER) });
    this.send({ ask: what, id });
  }

  send(content) {
    try {
      this.model.send({ ...content, frontend: this.name });
    } catch {
      this.lose(); // the way to the kernel is closed
    }
  }

  unanswered(id) {
    const asked = this.waiting.get(id);
    if (asked) asked.late = true;
    if (this.heard === null) this.gone = true;
    this.paint();
  }

  /** The connection was lost, or is there again: an answer will tell. */
  doubt() {
    this.heard = null;
    this.ask("state");
  }

  lose() {
    this.gone = true;
    this.paint();
  }

  late(...whats) {
    return [...this.waiting.values()].some(({ what, late }) => late && whats.includes(what));
  }

  steer(what) {
    this.refused = "";
    this.forget(what);
    this.ask(what);
    this.paint();
  }

  /** Ask the same thing again: one answer is enough. */
  forget(what) {
    for (const [id, asked] of this.waiting) if (asked.what === what) this.waiting.delete(id);
  }

  get quiet() {
    return this.heard === null ? 0 : performance.now() - this.heard;
  }

  /** Once a second while the run goes on: a kernel that says nothing is asked whether it is there. */
  tick() {
    if (!this.going || this.gone) return;
    if (this.quiet > QUIET_AFTER && performance.now() - this.pinged > QUIET_AFTER) {
      this.forget("state");
      this.pinged = performance.now();
      this.ask("state");
    }
    this.paint();
  }

  /** What is wrong with the connection, in words. */
  get notice() {
    if (!this.going) return "";
    if (this.refused) return this.refused;
    const as = this.head.time ? ` This is how things stood at ${clock(this.head.time)}.` : "";
    if (this.gone) return `No kernel answers: nothing is live any more.${as}`;
    if (this.late("stop", "pause", "resume")) {
      return "The kernel is busy with a cell, so the click has not arrived. It counts when the cell ends; to stop a run that the cell waits for or drives, interrupt the cell (■).";
    }
    if (this.quiet <= QUIET_AFTER || STILL.includes(this.head.state)) return "";
    const ago = `Last heard ${Math.round(this.quiet / 1000)} s ago`;
    return this.late("state") ? `${ago}: the kernel is busy with a cell, or gone.` : `${ago}.`;
  }

  join(view) {
    this.views.add(view);
    if (this.views.size === 1) {
      this.send({ ask: "views", open: true });
      this.timer = setInterval(() => this.tick(), 1000);
    }
  }

  leave(view) {
    this.views.delete(view);
    if (this.views.size === 0) {
      clearInterval(this.timer);
      this.send({ ask: "views", open: false });
    }
  }

  paint() {
    for (const view of this.views) view.paint();
  }

  close() {
    clearInterval(this.timer);
    for (const { timer } of this.waiting.values()) clearTimeout(timer);
    stores.delete(keyOf(this.model));
  }
}

const stores = new Map();

// ---- a chart

const TOP = 6;
const BOTTOM = 20;
const COLOURS = { "each step": 0, train: 0, val: 1 };

class Chart {
  constructor(title, isWide) {
    this.title = title;
    this.lines = new Map();
    this.grid = h("g");
    this.curves = h("g");
    this.cursor = h("line", { class: "ls-cursor", visibility: "hidden" });
    this.svg = h("svg", { role: "img", onpointermove: (event) => this.point(event), onpointerleave: () => this.point(null) }, this.grid, this.curves, this.cursor);
    this.place = h("span", { class: "ls-place" });
    this.nothing = h("p", { class: "quiet" }, "no finite value");
    this.log = h("button", { type: "button", class: "ls-log", "aria-pressed": "false", title: "Logarithmic scale", onclick: () => this.toggle() }, "log");
    this.legend = h("span", { class: "ls-legend" });
    this.element = h("figure", { class: isWide ? "ls-wide" : "" }, h("figcaption", {}, h("h3", {}, title), this.log, this.place, this.legend), this.nothing, this.svg);
    this.ticks = [];
    this.at = null; // the x that is pointed at
    this.resizing = new ResizeObserver(() => this.draw());
    this.resizing.observe(this.svg);
  }

  close() {
    this.resizing.disconnect();
  }

  /** @param curves the lines: `{label, dense, newest, rows}`, a row being x, smallest, largest and mean of some points */
  show(curves) {
    this.data = curves;
    keyed(this.legend, this.lines, curves.map(([name]) => name), (name) => this.line(name));
    curves.forEach(([name], index) => {
      const { group } = this.lines.get(name); // in the order of the legend
      if (this.curves.children[index] !== group) this.curves.insertBefore(group, this.curves.children[index] ?? null);
    });
    this.draw();
  }

  line() {
    const parts = { band: h("path", { class: "ls-band" }), curve: h("path", { class: "ls-curve" }), dots: h("path", { class: "ls-dots" }) };
    const label = document.createTextNode("");
    const value = h("b");
    const swatch = h("i");
    const element = h("span", {}, swatch, label, value);
    const group = h("g", {}, parts.band, parts.curve, parts.dots);
    return { ...parts, label, value, swatch, element, group, close: () => group.remove() };
  }

  toggle() {
    mark(this.log, "aria-pressed", this.log.getAttribute("aria-pressed") === "false");
    this.draw();
  }

  draw() {
    const rows = (this.data ?? []).flatMap(([, curve]) => curve.rows);
    const ends = rows.flatMap(([, low, high]) => (low === null ? [] : [low, high]));
    this.nothing.hidden = ends.length > 0;
    mark(this.svg, "hidden", ends.length ? null : "");
    const { clientWidth: width, clientHeight: height } = this.svg;
    if (!rows.length || (ends.length && !width)) return;
    if (!ends.length) [this.at, this.log.hidden] = [null, true];
    this.scaled = ends.length ? this.scale(rows, ends, width, height) : null;
    this.data.forEach(([name, curve], index) => this.trace(this.lines.get(name), curve, index, this.scaled ?? {}));
    this.read();
  }

  scale(rows, ends, width, height) {
    let low = ends.reduce((a, b) => Math.min(a, b));
    let high = ends.reduce((a, b) => Math.max(a, b));
    this.log.hidden = low <= 0 || high < 10 * low; // it would show nothing more
    const isLog = !this.log.hidden && this.log.getAttribute("aria-pressed") === "true";
    const to = isLog ? Math.log10 : (value) => value;
    if (high - low <= 1e-9 * Math.max(Math.abs(low), Math.abs(high))) [low, high] = low === 0 ? [-1, 1] : [low - Math.abs(low) / 2, high + Math.abs(high) / 2];
    const n = height > 150 ? 5 : 3;
    const ys = isLog ? decades(low, high, n) : ticks(low, high, n);
    [low, high] = [to(low), to(high)];
    const left = 8 + 6.4 * Math.max(2, ...ys.map((y) => short(y).length));
    const first = rows.reduce((x, row) => Math.min(x, row[0]), Infinity);
    const last = rows.reduce((x, row) => Math.max(x, row[0]), -Infinity);
    const span = last - first || 1;
    const pad = (high - low) * 0.05;
    const scale = {
      x: (value) => left + (last === first ? 0.5 : (value - first) / span) * (width - left - 6),
      y: (value) => TOP + (1 - (to(value) - low + pad) / (high - low + 2 * pad)) * (height - TOP - BOTTOM),
      back: (pixel) => first + ((pixel - left) / (width - left - 6)) * span,
    };
    const xs = ticks(first, last, Math.max(2, Math.floor(width / 90))).filter(Number.isInteger);
    this.rule([
      ...ys.map((y) => ({ at: [left, scale.y(y), width - 6, scale.y(y)], text: [left - 6, scale.y(y) + 3.5], say: short(y), kind: "ls-y" })),
      ...xs.map((x) => ({ text: [scale.x(x), height - 4], say: short(x), kind: "ls-x", isEnd: scale.x(x) > width - 20 })),
    ]);
    mark(this.cursor, "y1", TOP);
    mark(this.cursor, "y2", height - BOTTOM);
    return scale;
  }

  /** Draw the rules and their labels, with the elements that are there. */
  rule(wanted) {
    while (this.ticks.length < wanted.length) {
      const tick = { line: h("line"), text: h("text") };
      this.ticks.push(tick);
      this.grid.append(tick.line, tick.text);
    }
    this.ticks.forEach(({ line, text }, index) => {
      const tick = wanted[index];
      mark(line, "visibility", tick?.at ? "visible" : "hidden");
      mark(text, "visibility", tick ? "visible" : "hidden");
      if (tick?.at) ["x1", "y1", "x2", "y2"].forEach((name, side) => mark(line, name, tick.at[side].toFixed(1)));
      if (!tick) return;
      mark(text, "x", tick.text[0].toFixed(1));
      mark(text, "y", tick.text[1].toFixed(1));
      mark(text, "class", tick.kind);
      mark(text, "data-end", tick.isEnd ? "" : null);
      say(text, tick.say);
    });
  }

  trace(line, { label, dense, rows }, index, { x, y }) {
    for (const element of [line.group, line.element]) element.style.setProperty("--ls-colour", `var(--ls-${COLOURS[label] ?? index % 4})`);
    const isFaint = dense && this.data.some(([, other]) => !other.dense);
    const paths = stretches(rows);
    const move = (points) => `M${points.map(([a, b]) => `${a.toFixed(1)} ${b.toFixed(1)}`).join("L")}`;
    const spread = rows.some(([, low, high]) => low !== high);
    mark(line.band, "d", spread ? paths.map((path) => `${move([...path.map((row) => [x(row[0]), y(row[2])]), ...path.map((row) => [x(row[0]), y(row[1])]).reverse()])}Z`).join("") : "");
    mark(line.curve, "d", paths.map((path) => move(path.map((row) => [x(row[0]), y(row[3])]))).join(""));
    mark(line.curve, "class", isFaint ? "ls-curve ls-faint" : "ls-curve");
    const dots = (!dense && rows.length <= 60 ? paths : paths.filter((path) => path.length === 1)).flat(); // a line of one point is none
    mark(line.dots, "d", dots.map((row) => `${move([[x(row[0]), y(row[3])]])}h0`).join(""));
    mark(line.swatch, "class", isFaint ? "ls-faint" : "");
    line.swatch.hidden = this.data.length === 1;
    line.label.data = this.data.length === 1 ? "" : `${label} `;
  }

  point(event) {
    this.at = event && this.scaled ? this.scaled.back(event.clientX - this.svg.getBoundingClientRect().left) : null;
    this.read();
  }

  /** Say what the lines are where they are pointed at, or at their ends. */
  read() {
    const xs = this.at === null ? [] : this.data.flatMap(([, { rows }]) => rows.map((row) => row[0]));
    const near = xs.reduce((best, x) => (best === null || Math.abs(x - this.at) < Math.abs(best - this.at) ? x : best), null);
    mark(this.cursor, "visibility", near === null ? "hidden" : "visible");
    if (near !== null) for (const name of ["x1", "x2"]) mark(this.cursor, name, this.scaled.x(near).toFixed(1));
    say(this.place, near === null ? "" : `step ${count(near)}`);
    for (const [name, { newest, rows }] of this.data) {
      const [, low, high, mean] = rows.findLast(([x]) => x <= near) ?? [];
      say(this.lines.get(name).value, near === null ? number(newest) : low === high ? number(mean) : `${number(low)} to ${number(high)}`);
    }
    const ends = this.data.map(([, { label, newest }]) => `${label} ${number(newest)}`);
    mark(this.svg, "aria-label", `${this.title}, last: ${ends.join(", ")}`);
  }
}

/** Rows between those that have no value. */
function stretches(rows) {
  const found = [[]];
  for (const row of rows) {
    if (row[1] !== null) found.at(-1).push(row);
    else if (found.at(-1).length) found.push([]);
  }
  return found.filter((path) => path.length);
}

/** About `n` round numbers from `low` to `high`. */
function ticks(low, high, n) {
  const rough = (high - low) / n || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * unit).find((size) => size >= rough * 0.7) ?? 10 * unit;
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.max(0, Math.floor(high / step + 1e-9) - first + 1) }, (_, at) => +((first + at) * step).toPrecision(12));
}

/** Powers of ten from `low` to `high`, or where these are few, what lies between them, too. */
function decades(low, high, n) {
  const from = Math.floor(Math.log10(low));
  const powers = Array.from({ length: Math.ceil(Math.log10(high)) - from + 1 }, (_, at) => from + at);
  const found = (factors) => powers.flatMap((power) => factors.map((factor) => +(factor * 10 ** power).toPrecision(3))).filter((y) => y >= low && y <= high);
  const whole = found([1]);
  if (whole.length < 3) return found(whole.length < 2 ? [1, 2, 5] : [1, 3]);
  return whole.filter((_, at) => at % Math.ceil(whole.length / n) === 0);
}

// ---- a view

const TONES = { waiting: "not begun", unheard: "not heard any more" };

class View {
  constructor(store, el) {
    this.store = store;
    this.name = h("span", { class: "ls-name" });
    this.badge = h("span", { class: "ls-state" });
    this.pause = h("button", { type: "button", onclick: () => store.steer(store.head.state === "paused" ? "resume" : "pause") }, "Pause");
    this.stop = h("button", { type: "button", onclick: () => this.sure() }, "Stop");
    this.buttons = h("div", { class: "ls-buttons", role: "group", "aria-label": "Steer the run" }, this.pause, this.stop);
    this.about = h("p", { class: "quiet" });
    this.why = h("p", { class: "ls-why" });
    this.bar = h("progress", { max: 1, "aria-label": "Progress" });
    this.batches = h("progress", { class: "ls-batches", max: 1, "aria-label": "Batches" });
    this.where = h("span");
    this.left = h("span", { class: "ls-left" });
    this.progress = h("div", { class: "ls-progress" }, h("p", { class: "ls-where" }, this.where, this.left), this.bar, this.batches);
    this.tiles = h("div", { class: "ls-tiles", role: "list", "aria-label": "Newest numbers" });
    this.phases = h("ol", { class: "ls-phases" });
    this.grid = h("div", { class: "ls-charts" });
    this.warning = h("p", { class: "ls-notice" });
    this.notice = h("p", { class: "ls-notice", role: "status", "aria-live": "polite" });
    this.said = h("p", { class: "ls-said", "aria-live": "polite" });
    this.partial = h("p", { class: "quiet" });
    this.kept = { tiles: new Map(), phases: new Map(), charts: new Map() };
    const head = h("div", { class: "ls-top" }, h("div", { class: "ls-head" }, this.name, this.badge, this.buttons), this.about);
    this.element = h("section", { class: "lineside-run" }, head, this.notice, this.why, this.progress, this.tiles, this.phases, this.grid, this.warning, this.partial, this.said);
    el.append(this.element);
    store.join(this);
    this.paint();
  }

  close() {
    clearTimeout(this.armed);
    this.store.leave(this);
    for (const chart of this.kept.charts.values()) chart.close();
    this.element.remove();
  }

  /** The first click asks, the second one stops. */
  sure() {
    const isSure = this.armed !== undefined;
    this.disarm();
    if (isSure) {
      this.store.steer("stop");
      return;
    }
    this.armed = setTimeout(() => this.disarm(), SURE_FOR);
    mark(this.stop, "data-armed", "");
    say(this.stop, "Really stop?");
    say(this.said, "Press again to stop the run. It ends at the next batch and saves what it is to save.");
  }

  disarm() {
    clearTimeout(this.armed);
    this.armed = undefined;
    mark(this.stop, "data-armed", null);
    say(this.stop, "Stop");
  }

  paint() {
    const { store } = this;
    const { head } = store;
    const curves = Object.entries(store.state.curves ?? {});
    const isDead = store.gone && store.going;
    const state = isDead ? "unheard" : head.state;
    mark(this.element, "data-state", state);
    mark(this.element, "data-dead", isDead ? "" : null);
    mark(this.element, "aria-label", `Run ${head.run ?? ""}`);
    say(this.name, head.run ?? "");
    mark(this.badge, "data-state", state);
    if (this.badge.textContent !== (TONES[state] ?? state)) {
      if (this.badge.textContent) say(this.said, `The run is ${TONES[state] ?? state}`);
      say(this.badge, TONES[state] ?? state);
    }
    const what = [head.kind, head.model && `${head.model}${head.device ? ` on ${head.device}` : ""}`, head.facts];
    say(this.about, what.filter(Boolean).join(" · "));
    mark(this.why, "data-state", head.state);
    say(this.why, head.error ? `${head.error.type}: ${head.error.message}` : head.reason ?? "");
    this.why.hidden = !this.why.textContent;
    this.paintButtons(head, isDead);
    this.paintProgress(head, isDead);
    this.paintNumbers(head);
    this.paintCharts(curves);
    say(this.warning, head.warning ? `${head.warning[0].toUpperCase()}${head.warning.slice(1)}` : "");
    const notes = [head.partial && "Its beginning is not shown: the bus does not remember it any more.", head.leftOut > 0 && `${head.leftOut} more curves are not drawn.`];
    say(this.partial, notes.filter(Boolean).join(" "));
    say(this.notice, store.notice);
  }

  paintButtons(head, isDead) {
    this.buttons.hidden = !this.store.going || (!head.steerable && !isDead);
    const asks = [...this.store.waiting.values()].some(({ what, late }) => what !== "state" && !late);
    say(this.pause, head.state === "paused" ? "Resume" : "Pause");
    this.pause.disabled = isDead || asks || ["held", "stopping"].includes(head.state); // while it is held, it stands already
    this.stop.disabled = isDead || head.state === "stopping";
    if (this.stop.disabled && this.armed !== undefined) this.disarm();
  }

  paintProgress(head, isDead) {
    const isOver = !this.store.going;
    const share = head.state === "completed" ? 1 : head.share ?? null;
    if (share === null) this.bar.removeAttribute("value");
    else mark(this.bar, "value", share.toFixed(4));
    this.progress.hidden = head.kind === "export" || head.state === "waiting";
    this.bar.hidden = isOver && share === null;
    const hasEpochs = head.epoch !== null && head.epoch !== undefined;
    this.batches.hidden = isOver || !hasEpochs;
    mark(this.batches, "value", head.batches ? (head.batch / head.batches).toFixed(4) : 0);
    const current = isOver ? head.current : Math.min(head.epoch + 1, head.epochs ?? Infinity);
    const epoch = hasEpochs && current ? `epoch ${count(current)}${head.epochs ? ` of ${count(head.epochs)}` : ""}` : "";
    const step = head.steps ? `step ${count(head.step)} of ${count(head.steps)}` : "";
    const batch = head.batch && !(isOver && hasEpochs) ? `batch ${count(head.batch)}${head.batches ? ` of ${count(head.batches)}` : ""}` : "";
    say(this.where, [epoch, step, isOver ? "" : head.doing, batch].filter(Boolean).join(" · "));
    if (isOver) say(this.left, typeof head.duration === "number" ? `took ${duration(head.duration)}` : "");
    else say(this.left, typeof head.left === "number" && head.state === "running" && !isDead ? `${duration(Math.max(1, Math.round(head.left)))} left` : "");
  }

  paintNumbers(head) {
    const isOver = !this.store.going;
    const isSummed = isOver && Object.keys(head.metrics).length > 0;
    const shown = Object.entries({ ...head.metrics, ...(isSummed ? {} : head.numbers) });
    if (!isOver && head.speed) shown.push([head.kind === "predict" ? "inputs/s" : "samples/s", head.speed < 10 ? head.speed.toFixed(1) : Math.round(head.speed)]);
    if (head.best) shown.push(["best epoch", head.best]);
    keyed(this.tiles, this.kept.tiles, shown.map(([name]) => name), (name) => {
      const value = h("b");
      return { value, element: h("div", { role: "listitem" }, h("span", {}, name), value) };
    });
    for (const [name, value] of shown) say(this.kept.tiles.get(name).value, /^lr\b/.test(name) && typeof value === "number" ? short(value) : number(value));
    const done = new Map(head.phases);
    this.phases.hidden = head.kind !== "export";
    keyed(this.phases, this.kept.phases, head.kind === "export" ? head.allPhases : [], () => ({ element: h("li") }));
    for (const [phase, { element }] of this.kept.phases) {
      mark(element, "data-done", done.has(phase) ? "" : null);
      say(element, done.has(phase) ? `${phase} ${duration(done.get(phase))}` : phase);
    }
  }

  paintCharts(curves) {
    const titles = [...new Set(curves.filter(([, { rows }]) => rows.length).map(([, { chart }]) => chart))];
    const order = (title) => (title === "loss" ? 0 : title === "learning rate" ? 2 : 1);
    titles.sort((a, b) => order(a) - order(b));
    keyed(this.grid, this.kept.charts, titles, (title) => new Chart(title, title === "loss" || titles.length === 1));
    for (const title of titles) this.kept.charts.get(title).show(curves.filter(([, { chart }]) => chart === title));
  }
}

/** Each view gets a model object of its own; the key tells which of them are one model. */
const keyOf = (model) => model.get("key");

export default {
  initialize({ model }) {
    const store = new Store(model);
    stores.set(keyOf(model), store);
    return () => store.close();
  },
  render({ model, el }) {
    const view = new View(stores.get(keyOf(model)), el);
    return () => view.close();
  },
};
