/**
 * Pictures that events carry: a `data:image/…;base64` text, or rows of numbers. They are painted on a canvas, for the
 * page's rules on contents let no `data:` address into an image.
 */

import { h } from "./dom.js";

const DATA = /^data:(image\/(?:png|jpeg|webp|gif));base64,([A-Za-z0-9+/=\s]+)$/;
const LARGEST = 512; // rows or columns of numbers

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
 */
export function picture(value, label) {
  const canvas = h("canvas", { class: "picture", role: "img", "aria-label": label });
  if (isGrid(value)) grid(canvas, value);
  else void coded(canvas, String(value));
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
  canvas.getContext("2d")?.putImageData(image, 0, 0);
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {string} value
 */
async function coded(canvas, value) {
  const [, type = "", text = ""] = DATA.exec(value) ?? [];
  try {
    const bytes = Uint8Array.from(atob(text.replace(/\s/g, "")), (letter) => letter.charCodeAt(0));
    const image = await createImageBitmap(new Blob([bytes], { type }), { resizeWidth: 256 });
    canvas.width = image.width;
    canvas.height = image.height;
    canvas.getContext("2d")?.drawImage(image, 0, 0);
    image.close();
  } catch {
    canvas.replaceWith(h("span", { class: "picture broken" }, "unreadable picture"));
  }
}
