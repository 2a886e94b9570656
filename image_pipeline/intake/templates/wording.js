// What the page says, in one place.

const DECIMALS = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

/** `1234567` as `1.2 MB`: decimal units, as file managers show them. */
export function weight(bytes) {
  if (bytes < 1000) {
    return `${bytes} ${bytes === 1 ? "byte" : "bytes"}`;
  }
  if (bytes < 1e6) {
    return `${Math.round(bytes / 1000)} kB`;
  }
  return bytes < 1e9 ? `${DECIMALS.format(bytes / 1e6)} MB` : `${DECIMALS.format(bytes / 1e9)} GB`;
}

export const files = (count) => `${count} ${count === 1 ? "file" : "files"}`;

/** `75` seconds as `about 1 min`. */
export function duration(seconds) {
  return seconds < 60 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`;
}

/** Characters that are not seen, or turn the reading direction, are taken out of a name. */
export const readable = (name) => name.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, "");

const FORMATS = {
  "image/jpeg": "JPEG",
  "image/png": "PNG",
  "image/webp": "WebP",
  "image/avif": "AVIF",
  "image/heic": "HEIC",
  "image/heif": "HEIC",
  "image/tiff": "TIFF",
  "image/gif": "GIF",
  "image/bmp": "BMP",
};

export const format = (type) => FORMATS[type] ?? type;

/** What a file without a preview is called: its format, or else the end of its name. */
export const kind = ({ name, type }) =>
  FORMATS[type] ?? /\.([a-z0-9]{1,5})$/i.exec(name)?.[1].toUpperCase() ?? "No picture";

/** The formats of some types in words, each once. */
export const formats = (types) => [...new Set(types.map(format))].join(", ");

/** What a source takes, as a sentence below the drop area. */
export function limits({ files: count, bytes, types }) {
  return `${formats(types)}; up to ${weight(bytes)} each, ${files(count)} at a time`;
}

/** Why the pipeline did not take a picture, by its code; docs/verdicts.md explains each. */
export const REASONS = {
  empty_file: "The file is empty.",
  not_an_image: "The file is not a picture, whatever its name says.",
  unsupported_format: "Pictures of this format cannot be processed. Save it as JPEG or PNG.",
  truncated: "The file ends before the picture does. Take it from its origin once more.",
  decode_error: "The file is damaged and cannot be read.",
  too_many_bytes: "The file is larger than allowed.",
  too_many_pixels: "The picture has more pixels than allowed. Make it smaller.",
  too_many_frames: "The animation has more frames than allowed.",
  too_many_scans: "The file is built in an unusual way. Save it anew.",
  too_much_metadata: "The file carries too much besides the picture. Save it without metadata.",
  timeout: "The picture took too long to process.",
  out_of_memory: "The picture needed too much memory.",
  crashed_decoder: "The picture could not be processed.",
  gone: "The file was removed before it was processed.",
  superseded: "The file was replaced before it was processed.",
};

/** Errors of the service are written for programmers' logs: no capital, no full stop. */
export const sentence = (text) =>
  text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

/** The words for a state that the service has answered. */
export const rejection = ({ reason, message }) =>
  REASONS[reason] ?? sentence(message || "the picture was not accepted");
