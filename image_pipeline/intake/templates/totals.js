// How far all files together have come.

import { duration, files, weight } from "./wording.js";

/** The first seconds say little about the rest. */
const SETTLED = 2000;

const UNDER_WAY = ["sending", "waiting", "processing", "published", "rejected"];

/** What becomes of files that are sent, in the order in which it is told. */
const OUTCOMES = {
  published: "published",
  rejected: "rejected",
  processing: "being processed",
  waiting: "waiting",
};

const inState = (items, ...states) => items.filter((item) => states.includes(item.state));

/** The sum of a number of each item. */
export const sumOf = (items, what) => items.reduce((sum, item) => sum + item[what], 0);

/** Follows the pace of what is sent. */
export class Totals {
  #from = null;

  /** How much of all is sent, from 0 to 1, and that in words; null where nothing is under way. */
  of(items, now = performance.now()) {
    const underWay = inState(items, ...UNDER_WAY);
    if (!underWay.length) {
      return null;
    }
    const size = sumOf(underWay, "size");
    const sent = sumOf(underWay, "sent");
    const sending = inState(underWay, "sending").length;
    this.#from = sending ? (this.#from ?? { now, sent }) : null;
    const words = sending
      ? `${underWay.length - sending} of ${files(underWay.length)} sent,`
        + ` ${weight(sent)} of ${weight(size)}${this.#left(size, sent, now)}`
      : `${files(underWay.length)} sent: ${outcome(underWay)}`;
    return { share: size ? sent / size : 0, words };
  }

  #left(size, sent, now) {
    const passed = now - this.#from.now;
    const speed = (sent - this.#from.sent) / passed;
    return passed > SETTLED && speed > 0
      ? `, about ${duration((size - sent) / speed / 1000)} left`
      : "";
  }
}

function outcome(items) {
  return Object.entries(OUTCOMES)
    .map(([state, words]) => [inState(items, state).length, words])
    .filter(([count]) => count)
    .map(([count, words]) => `${count} ${words}`)
    .join(", ");
}
