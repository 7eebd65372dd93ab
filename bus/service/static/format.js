/** Numbers, durations, sizes and times as people read them. */

/**
 * On the wire nan and infinity are strings.
 * @param {unknown} value
 * @returns {number | null} null where it is no finite number
 */
export function finite(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

/**
 * @param {unknown} value
 * @returns {string}
 */
export function number(value) {
  if (typeof value === "string") return value === "NaN" ? "nan" : value.replace("Infinity", "∞").replace("-", "−");
  if (typeof value !== "number") return "–";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e7) return value.toLocaleString("en");
  if (value === 0 || (size >= 1e-3 && size < 10)) return value.toFixed(4);
  if (size >= 10 && size < 1e5) return value.toLocaleString("en", { maximumFractionDigits: size < 100 ? 2 : 1 });
  return value.toExponential(1);
}

/**
 * @param {number} value
 * @returns {string} with three digits that matter
 */
export function short(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2).replace(/\.?0+e/, "e");
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`;
  return String(+value.toPrecision(4));
}

/** @param {number} value */
export const count = (value) => value.toLocaleString("en");

/** @param {number} value a second */
export const rate = (value) => (value < 10 ? value.toFixed(1) : count(Math.round(value)));

/**
 * @param {number} seconds
 * @returns {string}
 */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds === 0) return "0 s";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${+(seconds * 1000).toPrecision(3)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${String(Math.floor(seconds % 60)).padStart(2, "0")} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/**
 * @param {number} seconds
 * @returns {string} in its largest unit only
 */
export function roughly(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

/** @param {number} bytes */
export function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (bytes >= 1000 && at < units.length - 1) {
    bytes /= 1000;
    at += 1;
  }
  return `${at && bytes < 10 ? bytes.toFixed(1) : Math.round(bytes)} ${units[at]}`;
}

const clockFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

/** @param {string | number} time */
export const clock = (time) => clockFormat.format(new Date(time));

/** @param {string | number} time */
export const day = (time) => dayFormat.format(new Date(time));

/** @param {Record<string, unknown>} values by name */
export function scalars(values) {
  return Object.entries(values).map(([name, value]) => `${name} ${number(value)}`).join(", ");
}

/** @param {string} path */
export const basename = (path) => path.split("/").pop() ?? path;
