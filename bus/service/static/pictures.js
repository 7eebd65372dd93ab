/**
 * Pictures that events carry: a `data:image/…;base64` text, or rows of numbers. They are painted on a canvas, for the
 * page's rules on contents let no `data:` address into an image.
 */

import { colour, h } from "./dom.js";

/** @typedef {import("./ranked.js").Frames} Frames */

const DATA = /^data:(image\/(?:png|jpeg|webp|gif));base64,([A-Za-z0-9+/=\s]+)$/;
const LARGEST = 512; // rows or columns of numbers
const WIDEST = 1024; // pixels of a canvas
const SMALL = 64; // pixels up to which each is shown as a square of its own

/**
 * @param {unknown} value
 * @returns {boolean}
 */
export function isPicture(value) {
  if (typeof value === "string") return value.startsWith("data:image/") && DATA.test(value);
  return isGrid(value);
}

/**
 * @param {unknown} value
 * @returns {value is number[][]}
 */
function isGrid(value) {
  if (!Array.isArray(value) || value.length < 4 || value.length > LARGEST) return false;
  const wide = Array.isArray(value[0]) ? value[0].length : 0;
  if (wide < 4 || wide > LARGEST) return false;
  return value.every((row) => Array.isArray(row) && row.length === wide && row.every((cell) => typeof cell === "number"));
}

/**
 * @param {unknown} value one that is a picture
 * @param {string} label
 * @param {Frames | null} [frames] what is to be seen where
 */
export function picture(value, label, frames = null) {
  const canvas = h("canvas", { class: "picture", role: "img", "aria-label": label });
  if (isGrid(value)) {
    grid(canvas, value);
    mark(canvas, frames);
  } else void coded(canvas, String(value), frames);
  return canvas;
}

/**
 * Numbers as shades, the smallest black and the largest white.
 * @param {HTMLCanvasElement} canvas
 * @param {number[][]} rows
 */
function grid(canvas, rows) {
  const cells = rows.flat();
  const low = cells.reduce((a, b) => Math.min(a, b));
  const high = cells.reduce((a, b) => Math.max(a, b));
  canvas.width = rows[0]?.length ?? 1;
  canvas.height = rows.length;
  const image = new ImageData(canvas.width, canvas.height);
  cells.forEach((cell, index) => {
    const shade = high > low ? (255 * (cell - low)) / (high - low) : 0;
    image.data.set([shade, shade, shade, 255], index * 4);
  });
  canvas.classList.add("pixels");
  canvas.getContext("2d")?.putImageData(image, 0, 0);
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {string} value
 * @param {Frames | null} frames
 */
async function coded(canvas, value, frames) {
  const [, type = "", text = ""] = DATA.exec(value) ?? [];
  try {
    const bytes = Uint8Array.from(atob(text.replace(/\s/g, "")), (letter) => letter.charCodeAt(0));
    const image = await createImageBitmap(new Blob([bytes], { type }));
    const scale = Math.min(1, WIDEST / Math.max(image.width, image.height));
    canvas.width = Math.max(1, Math.round(image.width * scale));
    canvas.height = Math.max(1, Math.round(image.height * scale));
    canvas.classList.toggle("pixels", image.width <= SMALL);
    canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
    image.close();
    mark(canvas, frames);
  } catch {
    canvas.replaceWith(h("span", { class: "picture broken" }, "unreadable picture"));
  }
}

/**
 * Draw the frames. They are in pixels of their picture: of another size than this one, if it is a thumbnail.
 * @param {HTMLCanvasElement} canvas
 * @param {Frames | null} frames
 */
function mark(canvas, frames) {
  const context = canvas.getContext("2d");
  if (!frames || !context) return;
  const [across, down] = [canvas.width / (frames.width || canvas.width), canvas.height / (frames.height || canvas.height)];
  const size = Math.max(9, canvas.width / 24);
  Object.assign(context, { lineWidth: Math.max(1, canvas.width / 140), strokeStyle: colour("good"), font: `600 ${size}px system-ui, sans-serif`, textBaseline: "top" });
  for (const { name, left, top, width, height } of frames.frames) {
    context.strokeRect(left * across, top * down, width * across, height * down);
    context.fillStyle = colour("good");
    context.fillRect(left * across, top * down, context.measureText(name).width + size / 2, 1.25 * size);
    context.fillStyle = colour("page");
    context.fillText(name, left * across + size / 4, top * down + size / 8);
  }
}
