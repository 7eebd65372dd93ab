/** Results that are classes with scores, or boxes with both, in the forms that they come in. */

/** @typedef {{name: string, score: number}} Score */
/** @typedef {{name: string, left: number, top: number, width: number, height: number}} Frame in pixels */
/** @typedef {{frames: Frame[], width: number | null, height: number | null}} Frames and the size of their picture */

const NAMES = ["names", "labels", "classes"];
const SCORES = ["scores", "confidences", "probabilities"];
const NAME = ["name", "label"];
const SCORE = ["score", "confidence", "probability"];
const BESIDE = new Set(["boxes", "indices", "width", "height"]); // what our own results have beside names and scores

/**
 * Classes with their scores, the best first: a list of objects of a name and a score, or an object of a list of names
 * and one of scores, as `Classes` and `Boxes` are.
 * @param {unknown} value
 * @returns {Score[] | null} null where it is nothing of the kind
 */
export function ranked(value) {
  if (!value || typeof value !== "object") return null;
  const found = Array.isArray(value) ? fromList(value) : fromColumns(/** @type {Record<string, unknown>} */ (value));
  const isRanked = found && found.length > 0 && found.every(({ name, score }) => typeof name === "string" && typeof score === "number");
  return isRanked ? found.sort((one, other) => other.score - one.score) : null;
}

/**
 * @param {unknown[]} values
 * @returns {Score[] | null}
 */
function fromList(values) {
  const isFit = values.every((one) => one && typeof one === "object" && Object.keys(one).length === 2);
  return isFit ? values.map((one) => /** @type {Score} */ ({ name: pick(one, NAME), score: pick(one, SCORE) })) : null;
}

/**
 * @param {Record<string, unknown>} columns
 * @returns {Score[] | null}
 */
function fromColumns(columns) {
  const [names, scores] = [pick(columns, NAMES), pick(columns, SCORES)];
  if (!Array.isArray(names) || !Array.isArray(scores) || names.length !== scores.length) return null;
  const others = Object.keys(columns).filter((key) => !BESIDE.has(key));
  return others.length === 2 ? names.map((name, at) => ({ name, score: scores[at] })) : null;
}

/**
 * Where things are in a picture: what has the form of `Boxes`.
 * @param {any} value
 * @returns {Frames | null} null where it is nothing of the kind
 */
export function framed(value) {
  const { boxes, names, width = null, height = null } = value ?? {};
  if (!Array.isArray(boxes) || !Array.isArray(names) || boxes.length !== names.length) return null;
  const isFit = boxes.every((box) => Array.isArray(box) && box.length === 4 && box.every(Number.isFinite));
  const frames = boxes.map(([left, top, right, bottom], at) => ({ name: String(names[at]), left, top, width: right - left, height: bottom - top }));
  return isFit ? { frames, width, height } : null;
}

/**
 * @param {any} from
 * @param {string[]} keys
 * @returns {unknown} what stands under the first of `keys` that is there
 */
function pick(from, keys) {
  const key = keys.find((one) => one in from);
  return key === undefined ? undefined : from[key];
}
