/** The page: the list on one side, a run on the other, and what is said in the address between them. */

import { MOST_OVERLAID } from "./curves.js";
import { byId, h } from "./dom.js";
import { liveRuns } from "./live-runs.js";
import { RunPage } from "./run.js";
import { RunList, began } from "./runs.js";
import { themes } from "./settings.js";

/** @typedef {import("./stream.js").State} State */

const main = byId("main");
const search = /** @type {HTMLInputElement} */ (byId("search"));
const help = /** @type {HTMLDialogElement} */ (byId("help"));
const list = new RunList({ list: byId("runs"), search, count: byId("count"), note: byId("runs-note"), overlay });

/** @type {RunPage | null} */
let page = null;

// -- the address: #/RUN+OVERLAID+OVERLAID ---------------------------------------------------------

/** @returns {string[]} the open run, and those laid over it */
function addressed() {
  if (!location.hash.startsWith("#/")) return [];
  return location.hash.slice(2).split("+").map(decodeURIComponent).filter(Boolean);
}

/** @param {string} run */
function overlay(run) {
  const [open, ...others] = addressed();
  if (!open) return;
  const after = others.includes(run) ? others.filter((other) => other !== run) : [...others, run].slice(-MOST_OVERLAID);
  history.replaceState(null, "", `#/${[open, ...after].map(encodeURIComponent).join("+")}`);
  route();
}

function route() {
  const [open = "", ...overlaid] = addressed();
  document.body.dataset.view = open ? "run" : "list";
  list.select(open, overlaid);
  if (open && page?.run === open) {
    page.curves.overlay(overlaid);
    return;
  }
  page?.close();
  page = null;
  states.run = open ? "connecting" : "live";
  connected();
  if (!open) {
    document.title = "Lineside";
    main.replaceChildren(h("div", { class: "blank" }, h("p", {}, "Choose a run to see its curves, stages and events.")));
    return;
  }
  page = new RunPage(main, open, (state, error) => {
    states.run = state;
    connected(error);
  });
  scrollTo(0, 0);
  void page.open(list.summaries.get(open), overlaid);
}

/** Where there is room beside the list, and no run is asked for, show the newest that goes on, or else the newest. */
function welcome() {
  if (addressed().length || matchMedia("(max-width: 820px)").matches) return;
  const newest = [...list.summaries.values()].sort((a, b) => began(b) - began(a));
  const first = newest.find(({ state }) => state === "running") ?? newest[0];
  if (!first) return;
  history.replaceState(null, "", `#/${encodeURIComponent(first.run)}`);
  route();
}

// -- the connection, said discreetly --------------------------------------------------------------

/** @type {{list: State, run: State}} */
const states = { list: "connecting", run: "live" };
const SAID = { connecting: "connecting", live: "live", lost: "reconnecting …", refused: "refused" };
const WORSE = /** @type {const} */ (["refused", "lost", "connecting", "live"]);

/** @param {string} [error] */
function connected(error) {
  const worst = WORSE.find((state) => states.list === state || states.run === state) ?? "live";
  const place = byId("connection");
  if (place.dataset.state === worst && !error) return;
  place.dataset.state = worst;
  place.title = worst === "lost" ? "The service does not answer. The page stays as it is and goes on by itself when it does." : (error ?? "");
  place.replaceChildren(h("span", {}, worst === "refused" && error ? error : SAID[worst]));
}

let isFirst = true;

liveRuns((news) => {
  if (news.runs) list.replace(news.runs);
  if (news.changed) list.update(news.changed);
  if (isFirst && list.summaries.size) {
    isFirst = false;
    welcome();
  }
  for (const summary of news.changed ?? news.runs ?? []) page?.changed(summary);
  if (news.state) states.list = news.state;
  if (news.state || news.error) connected(news.error);
});

// -- keys -----------------------------------------------------------------------------------------

/** @type {Record<string, () => void>} */
const keys = {
  "/": () => {
    if (getComputedStyle(search).visibility === "visible" && search.offsetParent) search.focus();
    else location.hash = "#/";
  },
  f: () => document.getElementById("feed-text")?.focus(),
  l: () => document.getElementById("log")?.click(),
  "?": () => help.showModal(),
};

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const target = /** @type {HTMLElement} */ (event.target);
  const isTyping = target.matches("input[type=search], select, textarea");
  if (event.key === "Escape") {
    if (isTyping) target.blur();
    else if (addressed().length) {
      location.hash = "#/";
      list.visible().find(({ link }) => link.tabIndex === 0)?.link.focus();
    }
    return;
  }
  const action = isTyping ? undefined : keys[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

byId("keys").addEventListener("click", () => help.showModal());
byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names a run
  main.focus();
});
themes(byId("theme"), () => page?.restyle());
addEventListener("hashchange", route);
route();
