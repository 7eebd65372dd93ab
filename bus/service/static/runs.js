/** The list of runs: newest first, each with its state and last metric; moved in with the arrow keys. */

import { h, painter, say } from "./dom.js";
import { number, roughly } from "./format.js";

/** @typedef {import("./api.js").Summary} Summary */

/**
 * @typedef {object} Row
 * @property {HTMLLIElement} element
 * @property {HTMLAnchorElement} link
 * @property {HTMLButtonElement} overlay
 * @property {(summary: Summary) => void} show
 */

const MOST = 400; // rows; the filter reaches the others

export class RunList {
  /**
   * @param {object} parts
   * @param {HTMLElement} parts.list
   * @param {HTMLInputElement} parts.search
   * @param {HTMLElement} parts.count
   * @param {HTMLElement} parts.note
   * @param {(run: string) => void} parts.overlay called to lay a run over the open one, or to take it off
   */
  constructor({ list, search, count, note, overlay }) {
    this.list = list;
    this.search = search;
    this.count = count;
    this.note = note;
    this.overlay = overlay;
    /** @type {Map<string, Summary>} */
    this.summaries = new Map();
    /** @type {Map<string, Row>} */
    this.rows = new Map();
    this.loaded = false;
    this.open = "";
    /** @type {readonly string[]} */
    this.overlaid = [];
    this.current = ""; // the one row that the tab key reaches
    this.painter = painter(() => this.paint());
    search.addEventListener("input", () => this.paint());
    search.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown") this.move(event, () => 0);
      if (event.key === "Enter") this.visible()[0]?.link.click();
    });
    list.addEventListener("keydown", (event) => this.key(event));
    list.addEventListener("focusin", ({ target }) => {
      const row = this.visible().find(({ element }) => element.contains(/** @type {Node} */ (target)));
      if (row) this.reach(row);
    });
    setInterval(() => this.painter.ask(), 15_000); // ages grow without any news
  }

  /** @param {Summary[]} summaries all there are */
  replace(summaries) {
    this.loaded = true;
    this.summaries = new Map(summaries.map((summary) => [summary.run, summary]));
    this.painter.ask();
  }

  /** @param {Summary[]} changed */
  update(changed) {
    for (const summary of changed) this.summaries.set(summary.run, summary);
    this.painter.ask();
  }

  /**
   * @param {string} open
   * @param {readonly string[]} overlaid
   */
  select(open, overlaid) {
    this.open = open;
    this.overlaid = overlaid;
    if (open) this.current = open;
    this.paint();
  }

  paint() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const all = [...this.summaries.values()].sort((a, b) => began(b) - began(a));
    const wanted = all.filter((summary) => matches(summary, words));
    const shown = wanted.slice(0, MOST);
    for (const [run, row] of this.rows) {
      if (this.summaries.has(run)) continue;
      row.element.remove();
      this.rows.delete(run);
    }
    shown.forEach((summary, index) => {
      let row = this.rows.get(summary.run);
      if (!row) this.rows.set(summary.run, (row = makeRow(summary.run, () => this.overlay(summary.run))));
      row.show(summary);
      const isOpen = summary.run === this.open;
      const place = this.overlaid.indexOf(summary.run);
      row.element.dataset.mark = isOpen ? "0" : place < 0 ? "" : String(place + 1);
      row.overlay.hidden = !this.open || isOpen || summary.kind !== "train";
      row.overlay.setAttribute("aria-pressed", String(place >= 0));
      if (isOpen) row.link.setAttribute("aria-current", "page");
      else row.link.removeAttribute("aria-current");
      // Moving a row that is where it belongs would take the focus from it.
      if (this.list.children[index] !== row.element) this.list.insertBefore(row.element, this.list.children[index] ?? null);
    });
    while (this.list.children.length > shown.length) this.list.lastElementChild?.remove();
    this.reach(this.visible().find(({ link }) => link.dataset.run === this.current) ?? this.visible()[0]);
    say(this.count, words.length ? `${wanted.length} of ${all.length}` : `${all.length}`);
    this.explain(all.length, wanted.length);
  }

  /**
   * @param {number} all
   * @param {number} wanted
   */
  explain(all, wanted) {
    if (!this.loaded) return say(this.note, "Reading the journal …");
    if (all === 0) {
      this.note.replaceChildren(
        h("p", {}, "No runs yet. They appear here by themselves as soon as a bus writes into this journal:"),
        h("pre", {}, 'with Bus("runs/") as bus:\n    Trainer(model, data, bus=bus).run()'),
      );
      return undefined;
    }
    if (wanted === 0) return say(this.note, "No run matches.");
    return say(this.note, wanted > MOST ? `The newest ${MOST} of ${wanted}. Filter for the others.` : "");
  }

  visible() {
    /** @type {Row[]} */
    const rows = [];
    for (const element of this.list.children) {
      const row = this.rows.get(/** @type {HTMLElement} */ (element).dataset.run ?? "");
      if (row) rows.push(row);
    }
    return rows;
  }

  /** @param {Row | undefined} row the one that the tab key shall reach */
  reach(row) {
    for (const other of this.rows.values()) other.link.tabIndex = other.overlay.tabIndex = other === row ? 0 : -1;
    if (row && document.activeElement === row.link) this.current = row.link.dataset.run ?? "";
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const rows = this.visible();
    const at = rows.findIndex(({ element }) => element.contains(document.activeElement));
    /** @type {Record<string, () => number>} */
    const moves = {
      ArrowDown: () => Math.min(at + 1, rows.length - 1),
      ArrowUp: () => at - 1,
      Home: () => 0,
      End: () => rows.length - 1,
      PageDown: () => Math.min(at + 10, rows.length - 1),
      PageUp: () => Math.max(at - 10, 0),
    };
    const move = moves[event.key];
    if (move) this.move(event, move);
    else if (event.key === "o" && !event.ctrlKey && !event.metaKey && rows[at] && !rows[at].overlay.hidden) rows[at].overlay.click();
  }

  /**
   * @param {Event} event
   * @param {() => number} where -1 is the search
   */
  move(event, where) {
    event.preventDefault();
    const index = where();
    if (index < 0) this.search.focus();
    else this.visible()[index]?.link.focus();
  }
}

/**
 * @param {string} run
 * @param {() => void} toggle
 * @returns {Row}
 */
function makeRow(run, toggle) {
  const state = h("span", { class: "state" });
  const about = h("span", { class: "what" });
  const metric = h("span", { class: "metric" });
  const track = h("span", { class: "track", "aria-hidden": "true" });
  const overlay = h("button", { class: "overlay", type: "button", title: "Lay over the open run (o)", "aria-label": `Lay ${run} over the open run`, onclick: toggle });
  const link = h("a", { href: `#/${encodeURIComponent(run)}`, "data-run": run }, h("span", { class: "line" }, h("span", { class: "id" }, run), state), h("span", { class: "line" }, about, metric), track);
  const element = h("li", { "data-run": run }, link, overlay);
  /** @param {Summary} summary */
  const show = (summary) => {
    element.dataset.state = summary.state;
    say(state, stateOf(summary));
    const parts = [summary.model ?? summary.kind ?? "run"];
    const isOver = summary.state === "finished" || summary.state === "failed";
    if (summary.kind !== "train" && summary.kind && summary.model) parts.push(summary.kind);
    else if (!isOver && summary.epochs && summary.epoch !== null) parts.push(`${Math.min(summary.epoch + 1, summary.epochs)}/${summary.epochs}`);
    if (isOver || parts.length < 2) parts.push(`${roughly((Date.now() - began(summary)) / 1000)} ago`);
    say(about, parts.join(" · "));
    say(metric, lastMetric(summary));
    track.hidden = !summary.epochs; // nobody knows here how far it is
    track.style.setProperty("--part", String(summary.epochs ? (summary.epoch ?? 0) / summary.epochs : 0));
  };
  return { element, link, overlay, show };
}

/** @param {Summary} summary */
export const began = (summary) => Date.parse(summary.started ?? summary.updated);

/**
 * In a word: one that somebody stopped is over, too.
 * @param {Summary} summary
 */
export const stateOf = ({ state, outcome }) => (outcome === "stopped" ? outcome : state);

/** @param {Summary} summary */
function lastMetric(summary) {
  const [first] = Object.entries(summary.metrics);
  if (first) return `${first[0] === "loss" ? "val loss" : first[0]} ${number(first[1])}`;
  return summary.fitness === null ? "" : `fitness ${number(summary.fitness)}`;
}

/**
 * @param {Summary} summary
 * @param {string[]} words all of which it must have
 */
function matches(summary, words) {
  const text = `${summary.run} ${summary.state} ${stateOf(summary)} ${summary.kind} ${summary.model} ${summary.host}`.toLowerCase();
  return words.every((word) => text.includes(word));
}
