/** One picture, as large as the window allows, with what is said of it; the arrow keys go to those beside it. */

import { h } from "./dom.js";
import { whole } from "./results.js";

/** @typedef {import("./results.js").Item} Item */

export class Enlarged {
  /**
   * @param {(item: Item, by: -1 | 1) => Item | undefined} beside
   * @param {(item: Item) => void} left called with the one that was shown last
   */
  constructor(beside, left) {
    this.beside = beside;
    /** @type {Item | null} */
    this.item = null;
    this.body = h("div", { class: "whole" });
    const go = (/** @type {-1 | 1} */ by) => () => this.go(by);
    this.newer = h("button", { class: "button", type: "button", "aria-label": "Newer picture", onclick: go(-1) }, "←");
    this.older = h("button", { class: "button", type: "button", "aria-label": "Older picture", onclick: go(1) }, "→");
    const close = h("button", { class: "button", type: "button", autofocus: true, onclick: () => this.close() }, "Close");
    this.element = h("dialog", { class: "enlarged" }, this.body, h("div", { class: "turn" }, this.newer, this.older, close));
    this.element.addEventListener("keydown", ({ key }) => {
      if (key === "ArrowLeft") this.go(-1);
      else if (key === "ArrowRight") this.go(1);
    });
    this.element.addEventListener("click", ({ target }) => {
      if (target === this.element) this.close(); // what lies behind it
    });
    this.element.addEventListener("close", () => {
      if (this.item) left(this.item);
      this.item = null;
      this.body.replaceChildren();
    });
  }

  /** @param {Item} item */
  open(item) {
    this.show(item);
    this.element.showModal();
  }

  close() {
    this.element.close();
  }

  /** @param {-1 | 1} by */
  go(by) {
    const next = this.item && this.beside(this.item, by);
    if (next) this.show(next);
  }

  /** @param {Item} item */
  show(item) {
    this.item = item;
    const { title, parts } = whole(item);
    this.element.setAttribute("aria-label", title);
    this.body.replaceChildren(...parts);
    this.newer.disabled = !this.beside(item, -1);
    this.older.disabled = !this.beside(item, 1);
  }
}
