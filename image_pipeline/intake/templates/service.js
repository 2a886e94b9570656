// The API of the service. Addresses are relative to the page, so it may lie behind any path.

import { Passing, persevere } from "./trying.js";
import { sentence } from "./wording.js";

/** The service said no; `code` is its word for why. */
export class Refused extends Error {
  constructor(status, error) {
    super(sentence(error?.message || `the service answered with ${status}`));
    this.status = status;
    this.code = error?.code ?? "";
  }
}

/** An answer takes milliseconds; on a bad connection, seconds. */
const PATIENCE = 30_000;

const PASSING = new Set([408, 425, 429, 500, 502, 503, 504]);

export class Service {
  #keyOf;

  /** `keyOf(source)` is the API key, or empty where none is needed. */
  constructor(keyOf) {
    this.#keyOf = keyOf;
  }

  limits(source) {
    return this.#ask("GET", `sources/${encodeURIComponent(source)}`, null, { source });
  }

  /** One answer per file, in their order: permission, or an error. */
  async grant(source, files, signal) {
    return (await this.#ask("POST", "uploads", { source, files }, { source, signal })).files;
  }

  // Who has the id of an upload needs no key for the rest.

  parts(id, numbers, signal) {
    return this.#ask("POST", `uploads/${encodeURIComponent(id)}/parts`, { numbers }, { signal });
  }

  complete(id, signal) {
    return this.#ask("POST", `uploads/${encodeURIComponent(id)}/complete`, {}, { signal });
  }

  abort(id) {
    // Whoever cancels may close the page in the same moment.
    return this.#ask("DELETE", `uploads/${encodeURIComponent(id)}`, null, { keepalive: true });
  }

  state(id, signal) {
    return this.#ask("GET", `uploads/${encodeURIComponent(id)}`, null, { signal });
  }

  events(ids) {
    const query = ids.map(encodeURIComponent).join(",");
    return new EventSource(new URL(`uploads/events?ids=${query}`, document.baseURI));
  }

  #ask(method, path, body, options = {}) {
    return persevere(() => this.#once(method, path, body, options), { signal: options.signal });
  }

  async #once(method, path, body, options) {
    const headers = {};
    const key = options.source ? this.#keyOf(options.source) : "";
    if (key) {
      headers.Authorization = `Bearer ${key}`;
    }
    if (body) {
      headers["Content-Type"] = "application/json";
    }
    const sent = body ? JSON.stringify(body) : undefined;
    const late = AbortSignal.timeout(PATIENCE);
    const signal = options.signal ? AbortSignal.any([options.signal, late]) : late;
    let response;
    let answer;
    try {
      response = await fetch(new URL(path, document.baseURI), {
        method, headers, signal, body: sent, cache: "no-store", keepalive: options.keepalive,
      });
      answer = response.status === 204 ? null : await response.json().catch(() => null);
    } catch {
      options.signal?.throwIfAborted();
      throw new Passing("The service could not be reached.");
    }
    if (response.ok) {
      return answer;
    }
    if (PASSING.has(response.status)) {
      const seconds = Number(response.headers.get("Retry-After"));
      throw new Passing(
        sentence(answer?.error?.message ?? "the service is busy"),
        seconds > 0 ? seconds * 1000 : undefined,
      );
    }
    throw new Refused(response.status, answer?.error);
  }
}
