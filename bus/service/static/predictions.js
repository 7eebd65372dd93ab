/** What was predicted, input by input, and pictures that any event carries. */

import { h, painter, panel, say } from "./dom.js";
import { Enlarged } from "./enlarged.js";
import { count } from "./format.js";
import { isPicture } from "./pictures.js";
import { card, hasPhoto, pictures } from "./results.js";
import { BATCH_TYPES } from "./wording.js";

/** @typedef {import("./api.js").LineEvent} LineEvent */
/** @typedef {import("./results.js").Item} Item */

const SHOWN = 36;
const plain = new Set([...BATCH_TYPES, "TrainEpochEnd", "FitEpochEnd"]); // types of ours that hold no pictures and come often

export class Predictions {
  constructor() {
    /** @type {Item[]} not painted yet, the oldest first */
    this.fresh = [];
    /** @type {{item: Item, element: HTMLElement}[]} the newest first; each is made once and stays as it is */
    this.cards = [];
    this.total = 0;
    const { element, body, note } = panel("Predictions", "predictions");
    this.element = element;
    this.element.hidden = true;
    this.note = note;
    this.list = h("ul", { class: "results", role: "list", "aria-labelledby": "title-predictions" });
    this.enlarged = new Enlarged((item, by) => this.beside(item, by), (item) => this.focus(item));
    body.append(this.list, this.enlarged.element);
    this.painter = painter(() => this.paint(), 300);
  }

  close() {
    this.painter.stop();
    this.enlarged.close();
  }

  /** @param {LineEvent[]} events */
  take(events) {
    for (const event of events) {
      const items = itemsOf(event);
      if (!items.length) continue;
      this.total += items.length;
      this.fresh = [...this.fresh, ...items].slice(-SHOWN);
      this.painter.ask();
    }
  }

  paint() {
    for (const item of this.fresh) {
      const element = card(item, () => this.enlarged.open(item));
      this.cards.unshift({ item, element });
      this.list.prepend(element);
      if (hasPhoto(item)) this.element.classList.add("gallery");
    }
    this.fresh = [];
    for (const { element } of this.cards.splice(SHOWN)) element.remove();
    this.element.hidden = this.cards.length === 0;
    say(this.note, this.total > this.cards.length ? `${this.cards.length} of ${count(this.total)} that came` : "");
  }

  /**
   * The picture before or after that of `item`, as they stand on the page.
   * @param {Item} item
   * @param {-1 | 1} by
   * @returns {Item | undefined}
   */
  beside(item, by) {
    const items = this.cards.map((one) => one.item).filter((one) => one === item || pictures(one).length > 0);
    const at = items.indexOf(item);
    return at < 0 ? undefined : items[at + by];
  }

  /** @param {Item} item */
  focus(item) {
    this.cards.find((one) => one.item === item)?.element.querySelector("button")?.focus();
  }
}

/**
 * @param {LineEvent} event
 * @returns {Item[]}
 */
function itemsOf(event) {
  if (event.type === "PredictBatchEnd") {
    /** @type {string[]} */
    const inputs = event.inputs;
    return inputs.map((name, index) => ({ name, result: event.results[index] }));
  }
  if (plain.has(event.type)) return [];
  /** @type {Item[]} */
  const found = [];
  for (const [name, value] of Object.entries(event)) {
    const values = Array.isArray(value) && !isPicture(value) ? value : [value];
    for (const one of values) {
      const holds = isPicture(one) || (one && typeof one === "object" && Object.values(one).some(isPicture));
      if (holds) found.push({ name: `${event.type} ${name}`, result: one });
    }
  }
  return found;
}
