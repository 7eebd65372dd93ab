/** The buttons that stop, pause and resume a run: where the service can reach it, and lets people steer it. */

import { at, post } from "./api.js";
import { h, say } from "./dom.js";

/** @typedef {"running" | "paused" | "stopping"} Going */

export class Steering {
  /**
   * @param {string} run
   * @param {() => Promise<void>} asked called when the run was asked for something: what it does then, it says itself
   */
  constructor(run, asked) {
    this.run = run;
    this.asked = asked;
    /** @type {Going | null} what the run does, as the service says; null: it cannot be steered */
    this.going = null;
    this.busy = false;
    this.pause = h("button", { class: "button", type: "button", onclick: () => this.ask(this.going === "paused" ? "resume" : "pause") });
    this.stop = h("button", { class: "button", type: "button", onclick: () => this.sure.showModal() }, "Stop …");
    const yes = h("button", { class: "button bad", value: "stop" }, "Stop the run");
    const no = h("button", { class: "button", value: "", autofocus: true }, "Let it go on");
    this.sure = h("dialog", { "aria-labelledby": "sure-title" },
      h("h2", { id: "sure-title" }, "Stop this run?"),
      h("p", {}, "It ends at the next batch, and saves what it is to save. It cannot go on from this page."),
      h("form", { method: "dialog" }, no, " ", yes),
    );
    this.sure.addEventListener("close", () => {
      if (this.sure.returnValue === "stop") void this.ask("stop");
      this.sure.returnValue = "";
    });
    this.said = h("p", { class: "said", role: "alert" });
    this.element = h("div", { class: "steering", role: "group", "aria-label": "Steer the run", hidden: true }, this.pause, this.stop, this.sure);
  }

  /** @param {"stop" | "pause" | "resume"} what */
  async ask(what) {
    if (this.busy) return;
    this.busy = true;
    say(this.said, "");
    try {
      await post(`${at(this.run)}/${what}`, what === "stop" ? { reason: "stopped from the dashboard" } : {});
    } catch (error) {
      say(this.said, `Could not ${what}: ${error instanceof Error ? error.message : error}`);
    }
    this.busy = false;
    await this.asked();
  }

  /** @param {boolean} isOver whether the run is */
  paint(isOver) {
    const going = isOver ? null : this.going;
    this.element.hidden = going === null;
    if (isOver) this.sure.close();
    say(this.pause, going === "paused" ? "Resume" : "Pause");
    this.pause.hidden = this.stop.hidden = going === "stopping";
  }
}
