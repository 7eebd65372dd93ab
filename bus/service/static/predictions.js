/** What was predicted, input by input, and pictures that any event carries. */

import { h, painter, panel, say } from "./dom.js";
import { count, number } from "./format.js";
import { isPicture, picture } from "./pictures.js";
import { BATCH_TYPES } from "./wording.js";

/** @typedef {import("./api.js").LineEvent} LineEvent */
/** @typedef {{name: string, result: unknown}} Item */

const SHOWN = 36;
const plain = new Set([...BATCH_TYPES, "TrainEpochEnd", "FitEpochEnd"]); // types of ours that hold no pictures and come often

export class Predictions {
  constructor() {
    /** @type {Item[]} newest first */
    this.items = [];
    this.total = 0;
    const { element, body, note } = panel("Predictions", "predictions");
    this.element = element;
    this.element.hidden = true;
    this.note = note;
    this.list = h("ul", { class: "results" });
    body.append(this.list);
    this.painter = painter(() => this.paint(), 300);
  }

  close() {
    this.painter.stop();
  }

  /** @param {LineEvent[]} events */
  take(events) {
    for (const event of events) {
      const items = itemsOf(event);
      if (!items.length) continue;
      this.total += items.length;
      this.items = [...items.reverse(), ...this.items].slice(0, SHOWN);
      this.painter.ask();
    }
  }

  paint() {
    this.element.hidden = this.items.length === 0;
    say(this.note, this.total > this.items.length ? `${this.items.length} of ${count(this.total)} that came` : "");
    this.list.replaceChildren(...this.items.map(card));
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

/** @param {Item} item */
function card({ name, result }) {
  /** @type {[string, unknown][]} */
  const fields = result && typeof result === "object" && !Array.isArray(result) ? Object.entries(result) : [["", result]];
  const shown = fields.filter(([, value]) => isPicture(value)).map(([, value]) => picture(value, name));
  const said = fields.filter(([, value]) => !isPicture(value)).map(([field, value]) => line(field, value));
  return h("li", {}, ...shown, h("div", { class: "words" }, h("span", { class: "input", title: name }, name), ...said));
}

/**
 * @param {string} field
 * @param {unknown} value
 */
function line(field, value) {
  const text = typeof value === "number" ? number(value) : typeof value === "string" ? value : JSON.stringify(value);
  const element = h("span", { class: "field", title: field }, field && h("i", {}, field), h("b", {}, String(text).slice(0, 80)));
  if (typeof value === "number" && /confidence|score|prob/i.test(field)) element.style.setProperty("--part", String(Math.min(Math.max(value, 0), 1)));
  return element;
}
