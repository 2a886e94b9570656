// Trying again what a bad connection breaks, and sending no more at a time than helps.

/** How often a request is made in all: with the waits below, for about a minute. */
const ATTEMPTS = 7;

const LONGEST_WAIT = 30_000;

/** Something that may go well next time; `after` is how many milliseconds later, if known. */
export class Passing extends Error {
  constructor(message, after) {
    super(message);
    this.after = after;
  }
}

/** Resolves after some milliseconds; rejects when `signal` is aborted. */
export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

// Without a network every attempt is lost at once; none is counted until there is one.
async function connected(signal) {
  while (!navigator.onLine) {
    await Promise.race([
      new Promise((resolve) => addEventListener("online", resolve, { once: true })),
      pause(LONGEST_WAIT, signal),
    ]);
  }
}

/**
 * Do something until it goes well. Only `Passing` errors are tried again, each time after twice
 * the wait; half of it is random, or all who lost the same server would come back together.
 */
export async function persevere(act, { signal, onWait } = {}) {
  for (let attempt = 1; ; attempt += 1) {
    await connected(signal);
    signal?.throwIfAborted();
    try {
      return await act();
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof Passing) || attempt === ATTEMPTS) {
        throw error;
      }
      const longest = Math.min(LONGEST_WAIT, 1000 * 2 ** (attempt - 1));
      const wait = error.after ?? longest * (0.5 + Math.random() / 2);
      onWait?.(wait);
      await pause(wait, signal);
    }
  }
}

/** Lets so many tasks run at a time, the others in the order in which they came. */
export class Slots {
  #free;
  #waiting = [];

  constructor(count) {
    this.#free = count;
  }

  async run(task, signal) {
    await this.#enter(signal);
    try {
      return await task();
    } finally {
      this.#leave();
    }
  }

  async #enter(signal) {
    signal?.throwIfAborted();
    if (this.#free > 0) {
      this.#free -= 1;
      return;
    }
    await new Promise((resolve, reject) => {
      const entry = { resolve };
      this.#waiting.push(entry);
      signal?.addEventListener(
        "abort",
        () => {
          const at = this.#waiting.indexOf(entry);
          if (at >= 0) {
            this.#waiting.splice(at, 1);
            reject(signal.reason);
          }
        },
        { once: true },
      );
    });
  }

  #leave() {
    const next = this.#waiting.shift();
    if (next) {
      next.resolve();
    } else {
      this.#free += 1;
    }
  }
}
