// Pictures of what was chosen, before any of it is sent.

import { Slots } from "./trying.js";

/** CSS pixels of a card, for screens of two to one. */
const WIDTH = 480;
const HEIGHT = 360;

/** So many are decoded at a time, and have an object URL: a photograph takes 100 MB as pixels. */
const slots = new Slots(2);

/**
 * A small drawing of a picture file; null where the browser cannot read it. The object URL lives
 * only until it is drawn, so neither the file nor its pixels are kept.
 */
export function preview(file, signal) {
  return slots.run(() => draw(file), signal).catch(() => null);
}

async function draw(file) {
  const url = URL.createObjectURL(file);
  try {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = WIDTH;
    canvas.height = HEIGHT;
    const { naturalWidth: width, naturalHeight: height } = image;
    const scale = Math.max(WIDTH / width, HEIGHT / height);
    const across = WIDTH / scale;
    const down = HEIGHT / scale;
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(
      image, (width - across) / 2, (height - down) / 2, across, down, 0, 0, WIDTH, HEIGHT,
    );
    return canvas;
  } finally {
    URL.revokeObjectURL(url);
  }
}
