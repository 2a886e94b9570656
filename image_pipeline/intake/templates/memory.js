// What is being sent, kept in IndexedDB with the files themselves, so that a page that was closed
// or reloaded goes on where it was. Without it (private windows, full disks) only that is missing.

const STORE = "uploads";

/** What was left longer than a day ago is not taken up again, and its file not kept. */
const KEPT = 24 * 3600 * 1000;

/** How long a reloaded page waits for its predecessor to let go of an upload. */
const PATIENCE = 3000;

const done = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

export class Memory {
  #database = null;

  static async open() {
    const memory = new Memory();
    try {
      const request = indexedDB.open("intake", 1);
      request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "key" });
      memory.#database = await done(request);
    } catch {
      // Uploads work without it.
    }
    return memory;
  }

  /** Keep a record under its `key`; false if it could not be. */
  async put(record) {
    return this.#try((store) => store.put({ ...record, at: Date.now() }), "readwrite");
  }

  async delete(key) {
    return this.#try((store) => store.delete(key), "readwrite");
  }

  /** The records that no other tab is busy with, the oldest first; they are ours from now on. */
  async take() {
    const keys = (await this.#all()).map(({ key }) => key);
    const claimed = await Promise.all(keys.map(Memory.claim));
    const ours = new Set(keys.filter((_, index) => claimed[index]));
    // Who let go of one in this moment may have changed it before.
    const records = (await this.#all()).filter(({ key }) => ours.has(key));
    const old = records.filter(({ at }) => at < Date.now() - KEPT);
    old.forEach(({ key }) => this.delete(key));
    return records.filter((one) => !old.includes(one)).sort((one, other) => one.at - other.at);
  }

  async #all() {
    let records = [];
    await this.#try(async (store) => {
      records = await done(store.getAll());
    }, "readonly");
    return records;
  }

  /** Make an upload this tab's, until the tab ends; false if it is another one's. */
  static claim(key) {
    if (!navigator.locks) {
      return Promise.resolve(true);
    }
    return new Promise((resolve) => {
      const hold = () => {
        resolve(true);
        return new Promise(() => {});
      };
      const signal = AbortSignal.timeout(PATIENCE);
      navigator.locks.request(`upload ${key}`, { signal }, hold).catch(() => resolve(false));
    });
  }

  async #try(act, mode) {
    if (!this.#database) {
      return false;
    }
    try {
      const transaction = this.#database.transaction(STORE, mode);
      const finished = new Promise((resolve, reject) => {
        transaction.oncomplete = resolve;
        transaction.onabort = () => reject(transaction.error);
      });
      await Promise.all([act(transaction.objectStore(STORE)), finished]);
      return true;
    } catch {
      return false;
    }
  }
}
