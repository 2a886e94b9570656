// What becomes of uploads: told by the service as it happens, asked for where that fails.

import { Refused } from "./service.js";
import { pause } from "./trying.js";

/** Characters of ids that one stream tells of: proxies take addresses of 8 kB, some of 4. */
const ADDRESS = 3500;

/** Uploads that are asked for in a round, each with a request of its own. */
const ASKED = 10;

/** A stream begins with the state of each upload; without one, something on its way holds it. */
const SILENCE = 10_000;

/** Rounds of asking before a stream is tried again. */
const ROUNDS = 8;

const FINAL = new Set(["published", "rejected"]);

export class Watcher {
  #service;
  #onState;
  #ids = new Set();
  #stream = null;
  #streamed = new Set();
  #silence = 0;
  #renewal = 0;
  #asking = false;

  /** `onState(answer)` is called with every state, also with one that is known. */
  constructor(service, onState) {
    this.#service = service;
    this.#onState = onState;
  }

  watch(id) {
    this.#ids.add(id);
    this.#renew();
  }

  forget(id) {
    this.#ids.delete(id);
    this.#renew();
  }

  #take(answer) {
    if (!this.#ids.has(answer.id)) {
      return;
    }
    if (FINAL.has(answer.state)) {
      this.#ids.delete(answer.id);
      this.#renew();
    }
    this.#onState(answer);
  }

  // Files arrive in quick succession: one new stream for all of them.
  #renew() {
    clearTimeout(this.#renewal);
    this.#renewal = setTimeout(() => this.#open(), 100);
  }

  #open() {
    const wanted = this.#oldest();
    const known = this.#stream && wanted.every((id) => this.#streamed.has(id));
    if (this.#asking || (known && wanted.length)) {
      return;
    }
    this.#close();
    if (!wanted.length) {
      return;
    }
    this.#streamed = new Set(wanted);
    this.#stream = this.#service.events(wanted);
    this.#silence = setTimeout(() => this.#ask(), SILENCE);
    this.#stream.addEventListener("state", (event) => {
      clearTimeout(this.#silence);
      this.#take(JSON.parse(event.data));
    });
    this.#stream.addEventListener("error", () => {
      // Otherwise the browser connects again by itself.
      if (this.#stream?.readyState === EventSource.CLOSED) {
        this.#ask();
      }
    });
  }

  // Batches are worked on in their order, so the oldest are the next to change.
  #oldest() {
    let length = 0;
    return [...this.#ids].filter((id) => (length += id.length + 1) <= ADDRESS);
  }

  #close() {
    clearTimeout(this.#silence);
    this.#stream?.close();
    this.#stream = null;
  }

  async #ask() {
    this.#close();
    if (this.#asking) {
      return;
    }
    this.#asking = true;
    for (let round = 0, wait = 1000; round < ROUNDS && this.#ids.size; round += 1) {
      await Promise.all([...this.#ids].slice(0, ASKED).map((id) => this.#askFor(id)));
      await pause(wait);
      wait = Math.min(15_000, wait * 1.5);
    }
    this.#asking = false;
    this.#renew();
  }

  async #askFor(id) {
    try {
      this.#take(await this.#service.state(id));
    } catch (error) {
      if (error instanceof Refused) {
        this.#take({ id, state: "rejected", reason: "unknown", message: error.message });
      }
    }
  }
}
