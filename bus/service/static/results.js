/** How the result for an input looks: its pictures, and what is said of it. */

import { h } from "./dom.js";
import { number } from "./format.js";
import { isPicture, picture } from "./pictures.js";
import { framed, ranked } from "./ranked.js";

/** @typedef {import("./ranked.js").Score} Score */
/** @typedef {{name: string, result: unknown}} Item */

const RANKS = 5; // classes of one result
const LEAST = 0.005; // probability from which on a class is worth a line

/**
 * @param {Item} item
 * @returns {[string, unknown][]} the fields of its result, by name
 */
function fieldsOf({ result }) {
  const isObject = result && typeof result === "object" && !Array.isArray(result);
  return isObject && !ranked(result) ? Object.entries(result) : [["", result]];
}

/** @param {Item} item */
export const pictures = (item) => fieldsOf(item).map(([, value]) => value).filter(isPicture);

/** @param {Item} item */
export const hasPhoto = (item) => pictures(item).some((value) => typeof value === "string");

/** @param {Item} item */
const framesOf = (item) => fieldsOf(item).map(([, value]) => framed(value)).find((one) => one !== null) ?? null;

/**
 * What it is called: a result may bring a name.
 * @param {Item} item
 */
function titleOf(item) {
  const named = fieldsOf(item).find(([field, value]) => field === "name" && typeof value === "string");
  return named ? String(named[1]) : item.name;
}

/**
 * @param {Item} item
 * @param {() => void} enlarge
 */
export function card(item, enlarge) {
  const title = titleOf(item);
  const shown = pictures(item).map((value) =>
    h("button", { class: "enlarge", type: "button", "aria-label": `Enlarge ${title}`, onclick: enlarge }, picture(value, title, framesOf(item))),
  );
  return h("li", {}, ...shown, words(item));
}

/**
 * What is said of an input: its name, and every field of its result that is no picture.
 * @param {Item} item
 */
function words(item) {
  const title = titleOf(item);
  const told = fieldsOf(item).filter(([field, value]) => !isPicture(value) && !(field === "name" && value === title));
  const said = told.map(([field, value]) => {
    const scores = ranked(value);
    return scores ? ranking(scores) : line(field, value);
  });
  return h("div", { class: "words" }, h("span", { class: "input", title: item.name }, title), ...said);
}

/** @param {Score[]} scores */
function ranking(scores) {
  const areShares = scores.every(({ score }) => score >= 0 && score <= 1);
  const worth = scores.filter(({ score }, rank) => rank === 0 || !areShares || score >= LEAST);
  const rows = worth.slice(0, RANKS).map(({ name, score }) => {
    const said = areShares ? `${Math.round(100 * score)} %` : number(score);
    const row = h("li", { class: "score", title: name }, h("span", {}, name), h("b", {}, said));
    row.style.setProperty("--part", areShares ? String(score) : "0");
    return row;
  });
  return h("ol", { class: "scores", role: "list" }, ...rows);
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

/**
 * The pictures of an input at their own size, and what is said of it.
 * @param {Item} item
 */
export function whole(item) {
  const title = titleOf(item);
  return { title, parts: [...pictures(item).map((value) => picture(value, title, framesOf(item))), words(item)] };
}
