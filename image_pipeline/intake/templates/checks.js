// What a source takes, checked before anything is sent. The service checks the same again.

import { files, formats, weight } from "./wording.js";

// Systems give no type to files whose ending they do not know, HEIC above all.
const ENDINGS = {
  avif: "image/avif",
  bmp: "image/bmp",
  gif: "image/gif",
  heic: "image/heic",
  heif: "image/heif",
  jpe: "image/jpeg",
  jpeg: "image/jpeg",
  jpg: "image/jpeg",
  png: "image/png",
  tif: "image/tiff",
  tiff: "image/tiff",
  webp: "image/webp",
};

// Other names of the same types that some systems use.
const ALIASES = {
  "image/jpg": "image/jpeg",
  "image/pjpeg": "image/jpeg",
  "image/x-ms-bmp": "image/bmp",
  "image/x-png": "image/png",
};

/** The type of a file as the service calls it; empty if nothing tells. */
export function typeOf(file) {
  const ending = file.name.slice(file.name.lastIndexOf(".") + 1).toLowerCase();
  return ALIASES[file.type] ?? (file.type || (ENDINGS[ending] ?? ""));
}

/** Why a file cannot be sent, as a sentence; null if it can. */
export function refusal(file, limits) {
  if (!limits.types.includes(typeOf(file))) {
    return `Only ${formats(limits.types)} can be sent.`;
  }
  if (file.size === 0) {
    return "The file is empty.";
  }
  if (file.size > limits.bytes) {
    return `The file has ${weight(file.size)}; ${weight(limits.bytes)} are allowed.`;
  }
  return null;
}

/** The files that still fit beside `ready` others, and a sentence about those that do not. */
export function fitting(chosen, ready, limits) {
  const room = Math.max(0, limits.files - ready);
  const left = chosen.length - room;
  if (left <= 0) {
    return { taken: chosen, words: "" };
  }
  const one = left === 1 ? "was" : "were";
  return {
    taken: chosen.slice(0, room),
    words: `${files(limits.files)} can be sent at a time: ${files(left)} of ${chosen.length} ${one}`
      + " left out. Upload these first, then choose the others.",
  };
}
