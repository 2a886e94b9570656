// What the page tells in words: to all in a notice, to screen readers as things happen.

const byId = (id) => document.getElementById(id);

/** Screen readers are told of changes no more often than this, in milliseconds. */
const ANNOUNCED = 3000;

let pending = [];
let quiet = 0;

/** Say something as soon as the last thing has been said. */
export function announce(text) {
  pending.push(text);
  if (!quiet) {
    tell();
  }
}

function tell() {
  quiet = 0;
  if (pending.length) {
    const more = pending.length > 3 ? [`${pending.length - 3} more changes.`] : [];
    byId("announcer").textContent = [...pending.slice(0, 3), ...more].join(" ");
    pending = [];
    quiet = setTimeout(tell, ANNOUNCED);
  }
}

/** Show a notice; an empty one takes it away. */
export function notice(text) {
  byId("notice").textContent = text;
  byId("notice").hidden = !text;
}
