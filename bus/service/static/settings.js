/** What a person chose, kept in the browser. */

import { forgetColours } from "./dom.js";

/**
 * @typedef {object} Choices
 * @property {boolean} log logarithmic scale
 * @property {number} smoothing 0 (as it is) to 1
 * @property {"step" | "time"} x what the curves are drawn over
 * @property {string} scope which events the feed shows
 */

/** @type {Choices} */
const defaults = { log: false, smoothing: 0.6, x: "step", scope: "milestones" };
const KEY = "lineside.choices";

/** @returns {Choices} */
function load() {
  try {
    return { ...defaults, ...JSON.parse(localStorage.getItem(KEY) ?? "{}") };
  } catch {
    return { ...defaults }; // storage is switched off, or holds something else
  }
}

const choices = load();

/** @returns {Readonly<Choices>} */
export const chosen = () => choices;

/** @param {Partial<Choices>} change */
export function choose(change) {
  Object.assign(choices, change);
  store(KEY, JSON.stringify(choices));
}

/**
 * @param {string} key
 * @param {string | null} value null forgets it
 */
export function store(key, value) {
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
  } catch {
    // it holds until the page is closed, then
  }
}

const THEMES = ["system", "light", "dark"];

/**
 * Let `button` go through the themes, and call `changed` whenever colours are other ones.
 * @param {HTMLElement} button
 * @param {() => void} changed
 */
export function themes(button, changed) {
  const root = document.documentElement;
  const recolour = () => {
    forgetColours();
    changed();
  };
  const name = () => root.dataset.theme ?? "system";
  const say = () => {
    button.textContent = `Theme: ${name()}`;
  };
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(name()) + 1) % THEMES.length] ?? "system";
    if (next === "system") delete root.dataset.theme;
    else root.dataset.theme = next;
    store("lineside.theme", next === "system" ? null : next);
    say();
    recolour();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
  say();
}
