/** The events of a run, newest first, by type and by text. Some hundred rows at most, however many there are. */

import { at, get } from "./api.js";
import { h, painter, panel, say } from "./dom.js";
import { clock } from "./format.js";
import { choose, chosen } from "./settings.js";
import { describe, isMilestone, subject } from "./wording.js";

/** @typedef {import("./api.js").LineEvent} LineEvent */

const ROWS = 250;
const KEPT = 1000; // of milestones, and as many of each other type

export class Feed {
  /** @param {string} run */
  constructor(run) {
    this.run = run;
    this.abort = new AbortController();
    /** @type {Map<string, LineEvent[]>} the latest, oldest first, by type */
    this.kept = new Map();
    /** @type {WeakMap<LineEvent, HTMLElement>} */
    this.rows = new WeakMap();
    /** @type {Set<string>} types whose past was asked for */
    this.asked = new Set();
    this.scope = h("select", { id: "scope", "aria-label": "Which events" });
    this.text = h("input", { type: "search", id: "feed-text", placeholder: "Search events", "aria-label": "Search events", autocomplete: "off", spellcheck: false });
    const { element, body, note } = panel("Events", "feed", this.scope, this.text);
    this.list = h("ol", { class: "events", tabIndex: 0, "aria-label": "Events, newest first" });
    this.empty = h("p", { class: "empty" }, "Reading the events …");
    body.append(this.empty, this.list);
    this.element = element;
    this.note = note;
    this.painter = painter(() => this.paint());
    this.scope.addEventListener("change", () => {
      choose({ scope: this.scope.value });
      void this.fetch(this.scope.value);
      this.paint();
    });
    this.text.addEventListener("input", () => this.paint());
    this.options();
  }

  close() {
    this.abort.abort();
    this.painter.stop();
  }

  /** @param {LineEvent[]} events in their order; of those that are known already nothing happens */
  take(events) {
    let isNew = false;
    for (const event of events) {
      let kept = this.kept.get(event.type);
      if (!kept) {
        this.kept.set(event.type, (kept = []));
        isNew = true;
      }
      kept.push(event);
      if (kept.length > KEPT * 1.5) kept.splice(0, kept.length - KEPT);
    }
    if (isNew) this.options();
    this.painter.ask();
  }

  /** @param {LineEvent[]} events of the past, put before what came since */
  past(events) {
    /** @type {Map<string, LineEvent[]>} */
    const byType = new Map();
    for (const event of events) {
      const list = byType.get(event.type);
      if (list) list.push(event);
      else byType.set(event.type, [event]);
    }
    for (const [type, list] of byType) {
      const live = this.kept.get(type) ?? [];
      const known = new Set(live.map(identity));
      this.kept.set(type, [...list.filter((event) => !known.has(identity(event))), ...live].slice(-KEPT));
    }
    this.options();
    this.painter.ask();
  }

  ready() {
    this.empty.textContent = "No event matches.";
    const { scope } = chosen();
    if (!this.known(scope)) this.options();
    void this.fetch(this.scope.value);
    this.painter.ask();
  }

  /** @param {string} scope */
  known(scope) {
    return scope === "milestones" || scope === "everything" || this.kept.has(scope);
  }

  /**
   * Ask for the latest events of types that the page did not load at first.
   * @param {string} scope
   */
  async fetch(scope) {
    if (scope === "milestones" || this.asked.has(scope) || (scope !== "everything" && isMilestone(scope))) return;
    this.asked.add(scope);
    try {
      const query = { tail: ROWS, ...(scope !== "everything" && { type: scope }) };
      /** @type {{events: LineEvent[]}} */
      const { events } = await get(`${at(this.run)}/events`, query, this.abort.signal);
      this.past(events);
    } catch {
      this.asked.delete(scope);
    }
  }

  options() {
    const types = [...this.kept.keys()].sort();
    const { scope } = chosen();
    const option = (/** @type {string} */ value, /** @type {string} */ label) => h("option", { value }, label);
    this.scope.replaceChildren(
      option("milestones", "milestones"),
      option("everything", "everything"),
      ...types.map((type) => option(type, type)),
    );
    this.scope.value = this.known(scope) ? scope : "milestones";
  }

  matching() {
    const scope = this.scope.value;
    const isNarrow = scope === "milestones";
    const types = [...this.kept.keys()].filter((type) => (isNarrow ? isMilestone(type) && type !== "PredictBatchEnd" : scope === "everything" || type === scope));
    const lists = types.map((type) => this.kept.get(type) ?? []);
    const words = this.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    /** @type {LineEvent[]} */
    const found = [];
    for (const event of newest(lists)) {
      if (isNarrow && event.rank && subject(event) !== "bad") continue; // the other ranks say the same
      if (words.length && !has(event, words)) continue;
      found.push(event);
      if (found.length === ROWS) break;
    }
    return found;
  }

  paint() {
    const events = this.matching();
    const rows = events.map((event) => this.row(event));
    // What is being read stays where it is while new rows come in above it.
    const isReading = this.list.scrollTop > 4;
    const anchor = isReading ? [...this.list.children].find((row) => /** @type {HTMLElement} */ (row).offsetTop >= this.list.scrollTop) : undefined;
    const before = anchor ? /** @type {HTMLElement} */ (anchor).offsetTop : 0;
    const wanted = new Set(rows);
    for (const row of [...this.list.children]) if (!wanted.has(/** @type {HTMLElement} */ (row))) row.remove();
    rows.forEach((row, index) => {
      if (this.list.children[index] !== row) this.list.insertBefore(row, this.list.children[index] ?? null);
    });
    if (anchor?.isConnected) this.list.scrollTop += /** @type {HTMLElement} */ (anchor).offsetTop - before;
    this.empty.hidden = rows.length > 0;
    this.list.hidden = rows.length === 0;
    say(this.note, rows.length === ROWS ? `the latest ${ROWS}` : "");
  }

  /** @param {LineEvent} event */
  row(event) {
    let row = this.rows.get(event);
    if (row) return row;
    const rank = event.rank ? h("span", { class: "rank" }, `rank ${event.rank}`) : null;
    const details = h("details", {}, h("summary", {},
      h("time", { dateTime: event.time, title: event.time }, clock(event.time)),
      h("span", { class: "type" }, event.type),
      h("span", { class: "said" }, describe(event)),
      rank,
    ));
    // Most rows are never opened.
    details.addEventListener("toggle", () => details.append(h("pre", {}, JSON.stringify(event, null, 1).slice(0, 20_000))), { once: true });
    row = h("li", { "data-subject": subject(event) }, details);
    this.rows.set(event, row);
    return row;
  }
}

/** @param {LineEvent} event */
export const identity = (event) => `${event.attempt}/${event.rank}/${event.seq}`;

/**
 * @param {LineEvent} event
 * @param {string[]} words
 */
function has(event, words) {
  const text = `${event.type} ${describe(event)} rank ${event.rank}`.toLowerCase();
  return words.every((word) => text.includes(word));
}

/**
 * Merge lists that are in order, from their ends.
 * @param {LineEvent[][]} lists
 * @returns {Generator<LineEvent>}
 */
export function* newest(lists) {
  const ends = lists.map((list) => list.length - 1);
  for (;;) {
    let best = -1;
    /** @type {LineEvent | undefined} */
    let found;
    lists.forEach((list, index) => {
      const event = list[ends[index] ?? -1];
      if (event && (!found || later(event, found))) [best, found] = [index, event];
    });
    if (!found) return;
    ends[best] = (ends[best] ?? 0) - 1;
    yield found;
  }
}

/**
 * @param {LineEvent} a
 * @param {LineEvent} b
 */
const later = (a, b) => (a.rank === b.rank && a.attempt === b.attempt ? a.seq > b.seq : a.time > b.time);
