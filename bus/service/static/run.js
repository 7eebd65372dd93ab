/** The page of one run: loads what was, then follows what comes, and hands both to its parts. */

import { Refused, at, get } from "./api.js";
import { Curves } from "./curves.js";
import { h, painter, say } from "./dom.js";
import { Feed, identity, newest } from "./feed.js";
import { day, roughly } from "./format.js";
import { Observing } from "./observing.js";
import { Predictions } from "./predictions.js";
import { Progress } from "./progress.js";
import { Ranks } from "./ranks.js";
import { stateOf } from "./runs.js";
import { Steering } from "./steering.js";
import { follow } from "./stream.js";
import { Throughput } from "./throughput.js";
import { Timeline } from "./timeline.js";
import { BATCH_TYPES, MILESTONE_TYPES, isMilestone } from "./wording.js";

/** @typedef {import("./api.js").LineEvent} LineEvent */
/** @typedef {import("./api.js").Summary} Summary */

const WHOLE = 2000; // a run of so many events is read whole; of a longer one the milestones
const PAGE = 5000; // the newest: they are for the feed, for the time left and for the ranks
const OWN = 1000; // the newest of a user's own types: however often they come, they take no room from the milestones

export class RunPage {
  /**
   * @param {HTMLElement} root
   * @param {string} run
   * @param {(state: import("./stream.js").State, error?: string) => void} connection
   */
  constructor(root, run, connection) {
    this.root = root;
    this.run = run;
    this.connection = connection;
    this.abort = new AbortController();
    /** @type {Summary | null} */
    this.summary = null;
    /** @type {{close: () => void} | null} */
    this.stream = null;
    this.progress = new Progress();
    this.throughput = new Throughput();
    this.curves = new Curves(run);
    this.timeline = new Timeline(run);
    this.feed = new Feed(run);
    this.ranks = new Ranks();
    this.predictions = new Predictions();
    const found = (/** @type {import("./observing.js").Found} */ { microseconds_per_step: cost, steering }) => {
      this.throughput.cost = cost;
      this.steering.going = steering;
      this.painter.ask();
    };
    this.observing = new Observing(run, found, () => !this.isOver);
    this.steering = new Steering(run, () => this.observing.load());
    this.painter = painter(() => this.paint());
    /** @type {LineEvent[] | null} what comes while the past is being read */
    this.waiting = [];
    /** @type {Set<string>} the events in the past that was read */
    this.known = new Set();
    /** @type {Map<string, number>} by publisher, the number of the newest of them */
    this.reached = new Map();
    this.chip = h("span", { class: "chip" });
    this.about = h("p", { class: "facts" });
    this.trouble = h("div", { class: "trouble", hidden: true });
    this.head = h("header", { class: "run-head" },
      h("div", { class: "name" }, h("a", { class: "back", href: "#/", "aria-label": "All runs" }, "‹ Runs"), h("h1", {}, run), this.chip, this.steering.element),
      this.about,
      this.steering.said,
      this.trouble,
      this.progress.element,
      this.throughput.element,
    );
    this.ticking = setInterval(() => this.tick(), 1000);
  }

  /**
   * @param {Summary | undefined} known what the list says of it
   * @param {readonly string[]} overlaid
   */
  async open(known, overlaid) {
    this.root.replaceChildren(this.head, h("p", { class: "empty" }, "Reading the run …"));
    if (known) this.show(known);
    try {
      /** @type {Summary} */
      const summary = await get(at(this.run), {}, this.abort.signal);
      this.show(summary);
      this.root.replaceChildren(
        this.head,
        this.curves.element,
        this.timeline.element,
        h("div", { class: "columns" },
          this.feed.element,
          h("div", { class: "side" }, this.ranks.element, this.predictions.element, this.observing.element),
        ),
      );
      this.curves.overlay(overlaid);
      // First the stream, then the past: what is in both is told apart by its number, and nothing is in neither.
      await this.follow();
      this.observing.ask();
      await Promise.all([this.curves.load(), this.timeline.load(), this.past(summary)]);
    } catch (error) {
      if (this.abort.signal.aborted) return;
      this.fail(error);
      this.close();
      this.connection("live"); // there is nothing to connect to
    }
  }

  /** @param {unknown} error */
  fail(error) {
    const message = error instanceof Error ? error.message : String(error);
    const again = h("button", { class: "button", type: "button", onclick: () => location.reload() }, "Try again");
    this.root.replaceChildren(h("div", { class: "blank" },
      h("h1", {}, error instanceof Refused && error.status === 404 ? "No such run" : "This run cannot be shown"),
      h("p", {}, message),
      h("p", {}, h("a", { class: "button", href: "#/" }, "All runs"), " ", again),
    ));
  }

  close() {
    this.abort.abort();
    this.stream?.close();
    clearInterval(this.ticking);
    this.painter.stop();
    for (const part of [this.curves, this.timeline, this.feed, this.ranks, this.predictions, this.observing]) part.close();
  }

  /**
   * Begin to follow what comes.
   * @returns {Promise<void>} done when the service has answered, be it that it cannot
   */
  follow() {
    return new Promise((resolve) => {
      this.stream = follow(`${at(this.run)}/events`, {
        after: "now",
        take: (messages) => {
          /** @type {LineEvent[]} */
          const events = [];
          for (const { event, data } of messages) {
            if (event === "gap") events.push(gap(data));
            else if (data?.type) events.push(data);
          }
          if (this.waiting) this.waiting.push(...events);
          else this.live(events);
        },
        state: (state, error) => {
          this.connection(state, error?.message);
          if (state !== "connecting") resolve();
        },
      });
    });
  }

  /**
   * Read what happened before the page was opened.
   * @param {Summary} summary
   */
  async past(summary) {
    const results = "PredictBatchEnd";
    const asked = summary.events <= WHOLE ? [{ tail: PAGE }] : [
      { tail: PAGE, type: MILESTONE_TYPES },
      { tail: OWN, not_type: [...BATCH_TYPES, ...MILESTONE_TYPES, results] },
      ...(summary.kind === "predict" ? [{ tail: PAGE, type: results }] : []),
    ];
    /** @type {LineEvent[]} */
    let events = [];
    try {
      /** @type {{events: LineEvent[]}[]} */
      const pages = await Promise.all(asked.map((query) => get(`${at(this.run)}/events`, query, this.abort.signal)));
      events = [...newest(pages.map((page) => page.events))].reverse();
    } finally {
      const waiting = this.waiting ?? [];
      this.waiting = null;
      if (!this.abort.signal.aborted) {
        this.feed.past(events);
        this.progress.take(events);
        this.throughput.take(events, false);
        this.ranks.take(events.filter(({ type }) => type === "TrainEpochEnd"));
        this.predictions.take(events);
        this.known = new Set(events.map(identity));
        this.reached = newestOf(events);
        this.live(waiting);
        this.feed.ready();
        this.painter.ask();
      }
    }
  }

  /** @param {LineEvent[]} came some of which the past may have had already: the stream may be behind it */
  live(came) {
    this.curves.take(came); // they have asked for a past of their own, which may end before ours
    this.timeline.take(came);
    const events = came.filter((event) => !this.isPast(event));
    if (!events.length) return;
    this.feed.take(events);
    this.progress.take(events);
    this.throughput.take(events, true);
    this.ranks.take(events);
    this.predictions.take(events);
    if (this.summary) this.summary = advanced(this.summary, events);
    this.observing.ask();
    this.painter.ask();
  }

  /**
   * Whether the past had it, or, of a batch, what came after it: then it tells nothing of how far the run is.
   * @param {LineEvent} event
   */
  isPast(event) {
    return this.known.has(identity(event)) || (!isMilestone(event.type) && event.seq <= (this.reached.get(publisher(event)) ?? -1));
  }

  /** @param {Summary} summary what the list says of this run, or of one that is laid over it */
  changed(summary) {
    if (summary.run === this.run) this.show(summary);
    else this.curves.changed(summary);
  }

  /** @param {Summary} summary */
  show(summary) {
    this.summary = summary;
    this.timeline.isRunning = summary.state === "running";
    this.curves.trains = summary.kind === "train" || summary.kind === null;
    document.title = `${summary.state === "running" ? "● " : ""}${summary.run} – Lineside`;
    this.painter.ask();
  }

  get isOver() {
    return this.summary?.state === "finished" || this.summary?.state === "failed";
  }

  tick() {
    if (!this.summary || this.isOver) return;
    this.painter.ask();
    this.timeline.painter.ask();
    this.observing.ask(); // whoever paused it, no event says so
  }

  paint() {
    const { summary } = this;
    if (!summary) return;
    this.steering.paint(this.isOver);
    const { going } = this.steering;
    const isPaused = going === "paused" && !this.isOver;
    const state = isPaused ? "stalled" : summary.state;
    this.chip.dataset.state = state;
    say(this.chip, going && going !== "running" && !this.isOver ? going : stateOf(summary));
    const started = summary.started ? `started ${day(summary.started)}` : "";
    const facts = [
      summary.kind !== "train" && summary.kind,
      summary.model,
      summary.ranks > 1 && `${summary.ranks} ranks`,
      summary.attempt > 1 && `attempt ${summary.attempt}`,
      summary.host && `${summary.host}, pid ${summary.pid}`,
      started,
    ];
    say(this.about, facts.filter(Boolean).join(" · "));
    this.warn(summary, isPaused);
    this.progress.paint({ ...summary, state });
    this.throughput.paint({ ...summary, state });
  }

  /**
   * @param {Summary} summary
   * @param {boolean} isPaused
   */
  warn(summary, isPaused) {
    const { error, reason } = summary;
    const state = isPaused ? "paused" : summary.state;
    const silent = (Date.now() - Date.parse(summary.updated)) / 1000;
    const said =
      state === "failed" ? [error ? `${error.type}: ${error.message}` : (reason ?? "It failed."), error?.traceback ?? ""]
      : isPaused ? ["Paused: from the next batch on it stands still, until it is resumed or stopped.", ""]
      : state === "stalled" ? [`Nothing heard for ${roughly(silent)}. Its process is alive; it may be waiting for data, a lock or another rank.`, ""]
      : summary.outcome === "stopped" && reason ? [`Stopped: ${reason}`, ""]
      : ["", ""];
    const [message = "", traceback = ""] = said;
    this.trouble.hidden = !message;
    this.trouble.dataset.state = state;
    if (this.trouble.dataset.said === message) return;
    this.trouble.dataset.said = message;
    this.trouble.replaceChildren(h("p", {}, message), ...(traceback ? [h("details", {}, h("summary", {}, "Traceback"), h("pre", {}, traceback))] : []));
  }

  restyle() {
    this.curves.restyle();
    this.timeline.paint();
  }
}

/**
 * The number of the newest event of each publisher.
 * @param {LineEvent[]} events
 */
function newestOf(events) {
  /** @type {Map<string, number>} */
  const newest = new Map();
  for (const event of events) {
    const key = publisher(event);
    if (event.seq > (newest.get(key) ?? -1)) newest.set(key, event.seq);
  }
  return newest;
}

/** @param {LineEvent} event */
const publisher = ({ attempt, rank }) => `${attempt}/${rank}`;

/**
 * What the events change in the summary, without waiting for the list to say so.
 * @param {Summary} summary
 * @param {LineEvent[]} events
 * @returns {Summary}
 */
function advanced(summary, events) {
  const changed = { ...summary, updated: events[events.length - 1]?.time ?? summary.updated };
  for (const event of events) {
    if (event.rank || event.aside) continue;
    if (event.type === "FitEpochEnd" || event.type === "ValEnd") Object.assign(changed, { metrics: event.metrics, fitness: event.fitness });
    else if (event.type === "RunEnd") {
      const { outcome, reason, error, duration, time } = event;
      Object.assign(changed, { state: outcome === "failed" ? "failed" : "finished", outcome, reason, error, duration, ended: time });
    } else if (changed.state === "stalled") changed.state = "running";
  }
  return changed;
}

/**
 * A hole in the journal as a row of the feed.
 * @param {{file: string, first: number, last: number}} data
 * @returns {LineEvent}
 */
function gap(data) {
  return { type: "Gap", run: "", attempt: 0, rank: 0, seq: data.first, time: new Date().toISOString(), elapsed: 0, ...data };
}
