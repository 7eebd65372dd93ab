/** What an event says, in a line. */

import { basename, count, duration, number, rate, scalars, size } from "./format.js";

/** @typedef {import("./api.js").LineEvent} LineEvent */

/** Types that come with every batch or request; all others are milestones. */
export const BATCH_TYPES = [
  "TrainBatchStart", "OptimizerStep", "ParamsUpdate", "BeforeZeroGrad", "TrainBatchEnd",
  "ValBatchStart", "ValBatchEnd", "PredictBatchStart", "PredictPostprocessEnd", "RequestStart", "RequestEnd",
];

/** The milestones of our own; whatever type is in neither list is a user's. */
export const MILESTONE_TYPES = [
  "RunStart", "RunEnd", "PretrainRoutineStart", "PretrainRoutineEnd", "TrainStart", "TrainEpochStart", "TrainEpochEnd",
  "ModelSave", "FitEpochEnd", "TrainEnd", "Teardown", "NonFinite", "OptimizerSkip", "ValStart", "ValEnd",
  "PredictStart", "PredictEnd", "ExportStart", "ExportPhase", "ExportEnd",
  "SubscriberFailed", "EventsMissed", "JournalDegraded", "JournalRecovered",
];

const batchTypes = new Set(BATCH_TYPES);

/** @param {string} type */
export const isMilestone = (type) => !batchTypes.has(type);

/**
 * @param {LineEvent} event
 * @returns {"train" | "val" | "save" | "predict" | "export" | "bad" | "run"} what it belongs to, for its colour
 */
export function subject({ type, outcome }) {
  if (/^(NonFinite|OptimizerSkip|SubscriberFailed|EventsMissed|JournalDegraded|Gap)$/.test(type) || outcome === "failed") return "bad";
  if (type === "ModelSave") return "save";
  if (type.startsWith("Val")) return "val";
  if (type.startsWith("Predict")) return "predict";
  if (type.startsWith("Export")) return "export";
  return /^(Train|Fit|Pretrain|Optimizer|Params|Before)/.test(type) ? "train" : "run";
}

const ENVELOPE = new Set(["type", "run", "attempt", "rank", "seq", "time", "elapsed"]);

/** @param {LineEvent} e */
const epoch = (e) => (e.epochs ? `epoch ${e.epoch + 1}/${e.epochs}` : `epoch ${e.epoch + 1}`);
/** @param {LineEvent} e */
const batch = (e) => (e.batches ? `batch ${e.batch + 1}/${e.batches}` : `batch ${e.batch + 1}`);
/** @param {...(string | false | null | undefined)} parts */
const line = (...parts) => parts.filter(Boolean).join(" · ");
/**
 * @param {number} number
 * @param {string} noun
 */
const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/**
 * What validation found; a name that the training has, too, is marked.
 * @param {LineEvent} e of the end of an epoch
 */
const validated = ({ losses, metrics }) => Object.fromEntries(Object.entries(metrics).map(([name, value]) => [validatedName(name, losses), value]));

/**
 * @param {string} name of what validation found
 * @param {Record<string, unknown> | undefined} trained the losses of the training
 */
export const validatedName = (name, trained) => (name === "loss" || Object.hasOwn(trained ?? {}, name) ? `val ${name}` : name);

/** @type {Record<string, (event: LineEvent) => string>} */
const words = {
  RunStart: (e) => line(e.model, e.device && `on ${e.device}`, e.world_size > 1 && `${e.world_size} ranks`, e.resumed_from && `from ${basename(e.resumed_from)}`),
  RunEnd: (e) => line(e.outcome, e.error ? `${e.error.type}: ${e.error.message}` : e.reason, `after ${duration(e.duration)}`),
  PretrainRoutineStart: () => "checked; moving model and data",
  PretrainRoutineEnd: (e) => line(`${count(e.parameters)} parameters`, e.batches && `${count(e.batches)} batches an epoch`, e.val_batches && `${count(e.val_batches)} to validate`),
  TrainStart: (e) => line(e.epochs && plural(e.epochs, "epoch"), e.step > 0 && `from step ${count(e.step)}`),
  TrainEpochStart: (e) => line(epoch(e), Object.keys(e.lr).length > 0 && `lr ${Object.values(e.lr).map(number).join(", ")}`),
  TrainBatchStart: (e) => line(batch(e), `waited ${duration(e.data_seconds)} for data`),
  TrainBatchEnd: (e) => line(batch(e), `loss ${number(e.loss)}`, duration(e.seconds)),
  OptimizerStep: (e) => line(batch(e), e.grad_norm !== null && `gradient ${number(e.grad_norm)}`),
  TrainEpochEnd: (e) => line(epoch(e), scalars(e.losses), `${rate(e.speed)} samples/s`, duration(e.duration)),
  FitEpochEnd: (e) => line(e.final ? "best weights" : epoch(e), scalars(validated(e)), !e.final && e.best_epoch === e.epoch && "best so far", duration(e.duration)),
  ModelSave: (e) => line(basename(e.path), e.best && "best so far", size(e.bytes), duration(e.duration)),
  TrainEnd: (e) => line(`${plural(e.epochs, "epoch")}, ${plural(e.step, "step")}`, e.best_epoch !== null && `best in epoch ${e.best_epoch + 1}`, duration(e.duration)),
  Teardown: (e) => line(e.outcome, e.reason),
  NonFinite: (e) => line(`step ${count(e.step)}`, scalars(e.losses)),
  OptimizerSkip: (e) => line(batch(e), "gradients were not finite", e.scale !== null && `scale ${number(e.scale)}`),
  ValStart: (e) => line(`epoch ${e.epoch + 1}`, e.batches && `${count(e.batches)} batches`),
  ValBatchEnd: (e) => line(batch(e), scalars(e.losses)),
  ValEnd: (e) => line(scalars(e.metrics), scalars(e.losses), `${count(e.samples)} samples`, duration(e.duration)),
  PredictStart: (e) => line(e.source, e.batches && `${count(e.batches)} batches of ${e.batch_size}`),
  PredictBatchEnd: (e) => line(batch(e), `${count(e.results.length)} results`),
  PredictEnd: (e) => line(`${count(e.inputs)} inputs`, duration(e.duration)),
  ExportStart: (e) => line(e.format, basename(e.path), e.dynamic_batch && "any batch size"),
  ExportPhase: (e) => line(e.format, e.phase, duration(e.duration)),
  ExportEnd: (e) => line(e.format, basename(e.path), size(e.bytes), `off by ${number(e.max_error)} at most`),
  SubscriberFailed: (e) => line(e.subscription, `on ${e.event}`, `${e.error.type}: ${e.error.message}`, e.switched_off && "switched off"),
  EventsMissed: (e) => line(e.subscription ?? "everybody", `${count(e.count)} events, ${e.first} to ${e.last}`, e.reason),
  JournalDegraded: (e) => e.error,
  JournalRecovered: (e) => line(`after ${duration(e.duration)}`, e.missed > 0 && `${count(e.missed)} events are not in it`),
  Gap: (e) => line(e.file, `positions ${e.first} to ${e.last} cannot be read`),
};

/**
 * @param {LineEvent} event
 * @returns {string}
 */
export function describe(event) {
  try {
    return words[event.type]?.(event) ?? fields(event);
  } catch {
    return fields(event); // of a version with other fields
  }
}

/** @param {LineEvent} event */
function fields(event) {
  return Object.entries(event)
    .filter(([name]) => !ENVELOPE.has(name))
    .map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : number(value) === "–" ? value : typeof value === "number" ? number(value) : value}`)
    .join(" · ")
    .slice(0, 300);
}
