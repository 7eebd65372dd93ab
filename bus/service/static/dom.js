/** Making elements. No markup is ever built from text, so nothing that an event says can become markup. */

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, unknown>} [properties] `class`, `data-*`, `aria-*`, `role` become attributes, `on…` listeners
 * @param {...(Node | string | null | undefined | false)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    else if (/^(class|role|for|scope|data-|aria-)/.test(name)) element.setAttribute(name, String(value));
    else Object.assign(element, { [name]: value });
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/**
 * Set the text of `element`, if it is another one: the layout is left alone otherwise.
 * @param {Element} element
 * @param {string} text
 */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/** @type {Map<string, string>} */
const colours = new Map();

/**
 * What a colour of the style sheet is in the current theme, for a canvas, which knows no variables.
 * @param {string} name of a CSS variable, without its dashes
 * @returns {string}
 */
export function colour(name) {
  let found = colours.get(name);
  if (found === undefined) {
    const probe = document.body.appendChild(h("i", { hidden: true }));
    probe.style.setProperty("color", `var(--${name})`);
    found = getComputedStyle(probe).color;
    probe.remove();
    colours.set(name, found);
  }
  return found;
}

/** The theme is another one. */
export const forgetColours = () => colours.clear();

/**
 * A section of a run's page: a heading, room for controls, and a body.
 * @param {string} title
 * @param {string} name for styles
 * @param {...Node} controls
 */
export function panel(title, name, ...controls) {
  const note = h("p", { class: "about" });
  const body = h("div", { class: "body" });
  const head = h("div", { class: "head" }, h("h2", { id: `title-${name}` }, title), note, h("div", { class: "controls" }, ...controls));
  const element = h("section", { class: `panel ${name}`, "aria-labelledby": `title-${name}` }, head, body);
  return { element, body, note };
}

/**
 * Call `paint` soon after it was asked for, and no more often than a person can follow.
 * @param {() => void} paint
 * @param {number} [milliseconds] between two of them
 */
export function painter(paint, milliseconds = 200) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  let last = -Infinity;
  const now = () => {
    timer = undefined;
    last = performance.now();
    paint();
  };
  return {
    ask() {
      timer ??= setTimeout(now, Math.max(0, last + milliseconds - performance.now()));
    },
    stop() {
      clearTimeout(timer);
      timer = undefined;
    },
  };
}
