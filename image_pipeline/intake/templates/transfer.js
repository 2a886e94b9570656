// Bytes straight to the bucket: small files with one POST, large ones in parts.

import { Refused } from "./service.js";
import { Passing, Slots, persevere } from "./trying.js";

/** Requests to the bucket at a time; browsers open six connections, and pictures need some. */
const slots = new Slots(3);

/** Addresses of parts that are asked for at once: so few are used before they expire. */
const ADDRESSES = 12;

/** A request that has not moved for so long is given up and made again. */
const STALLED = 60_000;

/** Answers that another attempt may change. */
const PASSING = new Set([0, 408, 429, 500, 502, 503, 504]);

/** The bucket said no: 403 when a permission has expired. */
export class BucketRefused extends Error {
  constructor(status, text) {
    // S3 answers in XML; its code is a word like EntityTooLarge.
    const [, code] = /<Code>([^<]+)<\/Code>/.exec(text) ?? [null, ""];
    super(`The storage did not take the file (${code || status}).`);
    this.status = status;
    this.code = code;
  }
}

/** One request; fetch() does not tell how far a body has come, so it is an XMLHttpRequest. */
function carry(method, url, body, { signal, onBytes }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    let watch = 0;
    const stop = () => request.abort();
    const live = () => {
      clearTimeout(watch);
      watch = setTimeout(stop, STALLED);
    };
    const end = (settle, value) => {
      clearTimeout(watch);
      signal.removeEventListener("abort", stop);
      settle(value);
    };
    const broken = () => end(reject, new Passing("The connection broke off."));
    request.upload.onprogress = (event) => {
      live();
      onBytes(event.loaded);
    };
    request.onload = () => {
      if (request.status >= 200 && request.status < 300) {
        end(resolve);
      } else if (PASSING.has(request.status)) {
        end(reject, new Passing("The storage is busy."));
      } else {
        end(reject, new BucketRefused(request.status, request.responseText));
      }
    };
    request.onerror = broken;
    request.onabort = () => (signal.aborted ? end(reject, signal.reason) : broken());
    signal.addEventListener("abort", stop, { once: true });
    request.open(method, url);
    request.send(body);
    live();
  });
}

/** A reloaded page gets the File from IndexedDB: one that has vanished from the disk fails here. */
async function present(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new Error("The file cannot be read any more. Choose it again.");
  }
}

/** Send a file whole. `onSent(bytes)` is called as it goes, and starts again with an attempt. */
export async function sendWhole(file, post, { signal, onSent, onWait }) {
  await present(file);
  const once = () => {
    const form = new FormData();
    for (const [name, value] of Object.entries(post.fields)) {
      form.append(name, value);
    }
    // S3 ignores every field behind this one.
    form.append("file", file);
    onSent(0);
    const onBytes = (bytes) => onSent(Math.min(bytes, file.size));
    return slots.run(() => carry("POST", post.url, form, { signal, onBytes }), signal);
  };
  await persevere(once, { signal, onWait });
  onSent(file.size);
}

/** The parts of a file: which are there, which are under way, and where the others go. */
class Parts {
  constructor(file, id, { part_size: size, parts: count }, service, hooks) {
    Object.assign(this, { file, id, size, count, service, hooks });
    this.there = new Map();
    this.moving = new Map();
    this.urls = new Map();
    this.asked = Promise.resolve();
  }

  missing() {
    const numbers = Array.from({ length: this.count }, (_, index) => index + 1);
    return numbers.filter((number) => !this.there.has(number));
  }

  slice(number) {
    return this.file.slice((number - 1) * this.size, number * this.size);
  }

  /** Ask where parts go; the answer also tells which are there, whoever sent them. */
  async ask(numbers) {
    const { signal } = this.hooks;
    const { parts, done } = await this.service.parts(this.id, numbers, signal);
    for (const { number, url } of parts) {
      this.urls.set(number, url);
    }
    for (const { number, size } of done) {
      // One that broke off is not listed by S3; one of another size is from another file.
      if (size === this.slice(number).size) {
        this.there.set(number, size);
      }
    }
    this.tell();
  }

  tell() {
    const sum = (sizes) => [...sizes.values()].reduce((one, other) => one + other, 0);
    this.hooks.onSent(sum(this.there) + sum(this.moving));
  }

  /** The address of a part; one request asks for those of its successors as well. */
  async url(number) {
    // One request at a time: those who wait for it find their addresses in its answer.
    const before = this.asked;
    const turn = (async () => {
      await before.catch(() => {});
      if (!this.urls.has(number)) {
        const next = this.missing().filter((one) =>
          one > number && !this.moving.has(one) && !this.urls.has(one));
        await this.ask([...new Set([number, ...next.slice(0, ADDRESSES)])]);
      }
    })();
    this.asked = turn;
    await turn;
    return this.urls.get(number);
  }

  async send(number) {
    const { signal, onWait } = this.hooks;
    const body = this.slice(number);
    const once = async () => {
      const url = await this.url(number);
      this.moving.set(number, 0);
      const onBytes = (bytes) => {
        this.moving.set(number, Math.min(bytes, body.size));
        this.tell();
      };
      try {
        await carry("PUT", url, body, { signal, onBytes });
        this.there.set(number, body.size);
      } catch (error) {
        this.urls.delete(number);
        throw error instanceof BucketRefused && error.status === 403
          ? new Passing("The permission has expired.")
          : error;
      } finally {
        this.moving.delete(number);
        this.tell();
      }
    };
    await persevere(once, { signal, onWait });
  }

  /** Send what is missing, three parts at a time. */
  async sendMissing() {
    const { signal } = this.hooks;
    // The first part that fails for good ends the others.
    const failed = new AbortController();
    const both = AbortSignal.any([signal, failed.signal]);
    this.hooks = { ...this.hooks, signal: both };
    const tasks = this.missing().map((number) =>
      slots.run(() => this.send(number), both).catch((error) => {
        failed.abort(error);
        throw error;
      }));
    await Promise.all(tasks);
    this.hooks = { ...this.hooks, signal };
  }
}

/**
 * Send a file in parts; those that the bucket has already are not sent again. Raises `Refused`
 * where the service knows nothing of the upload any more.
 */
export async function sendInParts(file, id, multipart, service, hooks) {
  await present(file);
  const parts = new Parts(file, id, multipart, service, hooks);
  try {
    await parts.ask(parts.missing().slice(0, ADDRESSES));
    await parts.sendMissing();
    await completed(parts);
  } catch (error) {
    // A page that was closed between the last part and our being told finds it whole.
    if (!(error instanceof Refused) || error.code !== "received") {
      throw error;
    }
  }
}

async function completed(parts) {
  const { id, service, hooks } = parts;
  try {
    await service.complete(id, hooks.signal);
  } catch (error) {
    if (!(error instanceof Refused) || error.code !== "incomplete") {
      throw error;
    }
    // A part was lost on its way; the bucket's list says which.
    parts.there.clear();
    await parts.ask(parts.missing().slice(0, ADDRESSES));
    await parts.sendMissing();
    await service.complete(id, hooks.signal);
  }
}
