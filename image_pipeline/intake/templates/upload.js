// The upload page: choose, check, send, and see what became of it.

import { Card } from "./card.js";
import { fitting, refusal, typeOf } from "./checks.js";
import { Memory } from "./memory.js";
import { Refused, Service } from "./service.js";
import { announce, notice } from "./telling.js";
import { Totals, sumOf } from "./totals.js";
import { BucketRefused, sendInParts, sendWhole } from "./transfer.js";
import { Watcher } from "./watching.js";
import * as wording from "./wording.js";

const byId = (id) => document.getElementById(id);

/** A permission that expired on the way is asked for anew so often. */
const RENEWALS = 3;

/** Counts and bars are drawn at most so often, in milliseconds. */
const DRAWN = 100;

const keyName = (source) => `intake-key ${source}`;

const source = () => byId("source").value;
const service = new Service((name) => sessionStorage.getItem(keyName(name)) ?? "");
const totals = new Totals();
const watcher = new Watcher(service, settle);
let memory = null;
let limits = null;
let items = [];

// What is shown

const changed = new Set();
let drawing = 0;

function show(item) {
  changed.add(item);
  drawing ||= setTimeout(draw, DRAWN);
}

function draw() {
  clearTimeout(drawing);
  drawing = 0;
  for (const item of changed) {
    item.card.update();
  }
  changed.clear();
  drawStage();
  drawTotal();
  byId("files-title").hidden = !items.length;
}

const inState = (...states) => items.filter((item) => states.includes(item.state));

function drawStage() {
  const ready = inState("ready");
  byId("stage").hidden = !ready.length;
  byId("chosen").textContent =
    `${wording.files(ready.length)}, ${wording.weight(sumOf(ready, "size"))}`;
  byId("send").textContent = `Upload ${wording.files(ready.length)}`;
}

function drawTotal() {
  const total = totals.of(items);
  byId("total").hidden = !total;
  if (total) {
    byId("total-bar").value = total.share;
    byId("total-words").textContent = total.words;
  }
}

function become(item, state, words = "") {
  Object.assign(item, { state, words });
  show(item);
}

// Choosing

function add(file, record = {}) {
  const item = {
    key: [...crypto.getRandomValues(new Uint32Array(4))].join("-"),
    source: source(),
    name: file?.name ?? record.name,
    size: file?.size ?? record.size,
    type: file ? typeOf(file) : record.type,
    id: null, multipart: null, state: "ready", words: "", sent: 0, renewals: 0,
    ...record,
    file,
  };
  item.card = new Card(item, { cancel, retry, remove, dismiss: remove });
  items.push(item);
  byId("files").append(item.card.element);
  return item;
}

const isSame = (one, other) => one.name === other.name && one.size === other.size
  && one.lastModified === other.lastModified;

function choose(chosen) {
  if (!limits) {
    if (byId("key-part").hidden) {
      notice("The files cannot be checked yet: the service has not said what it takes.");
    } else {
      askForKey();
    }
    return;
  }
  const ready = inState("ready");
  const fresh = [...chosen].filter((file) => !ready.some((item) => isSame(item.file, file)));
  const possible = fresh.filter((file) => !refusal(file, limits));
  const { taken, words } = fitting(possible, ready.length, limits);
  notice(words);
  // As many with an error as without: thousands of cards would say no more than the first ones.
  const wrong = fresh.filter((file) => refusal(file, limits));
  const shown = new Set([...taken, ...wrong.slice(0, limits.files)]);
  for (const file of fresh.filter((one) => shown.has(one))) {
    const item = add(file);
    const reason = refusal(file, limits);
    if (reason) {
      become(item, "refused", reason);
    } else {
      item.card.preview();
      show(item);
    }
  }
  draw();
  const unfit = wrong.length ? `, ${wrong.length} cannot be sent` : "";
  announce(`${wording.files(taken.length)} added${unfit}.`);
}

function remove(item) {
  const at = items.indexOf(item);
  items = items.filter((one) => one !== item);
  if (item.id) {
    watcher.forget(item.id);
  }
  if (item.state === "failed" && item.multipart) {
    drop(item.id);
  }
  memory.delete(item.key);
  const focused = item.card.element.contains(document.activeElement);
  item.card.remove();
  if (focused) {
    const next = items[Math.min(at, items.length - 1)];
    (next?.card.element.querySelector("button:not([hidden])") ?? byId("picker")).focus();
  }
  announce(`${item.card.name} removed.`);
  draw();
}

// Sending

function keep(item, isStored) {
  memory.put(recordOf(item, isStored)).then((kept) => {
    item.kept = kept;
  });
}

const recordOf = ({ key, source: name, id, multipart, file, ...item }, stored) => ({
  key, source: name, name: item.name, size: item.size, type: item.type,
  id, multipart, stored, file: stored ? null : file,
});

async function upload() {
  const ready = inState("ready");
  announce(`Uploading ${wording.files(ready.length)}.`);
  begin(ready);
  draw();
  // The button has gone with what it sends.
  byId("files-title").focus();
}

/** Ask for permission for files of one source, with one request, and send them. */
async function begin(chosen) {
  for (const item of chosen) {
    Object.assign(item, { sent: 0, id: null, multipart: null, controller: new AbortController() });
    become(item, "sending");
    Memory.claim(item.key);
    keep(item, false);
  }
  let answers;
  try {
    const asked = chosen.map(({ name, size, type }) => ({ name, size, type }));
    answers = await service.grant(chosen[0].source, asked);
  } catch (error) {
    refuseAll(chosen, error);
    return;
  }
  for (const [index, item] of chosen.entries()) {
    const { error, id, post, multipart } = answers[index];
    if (item.state !== "sending") {
      if (multipart) {
        drop(id);
      }
    } else if (error) {
      memory.delete(item.key);
      become(item, "refused", wording.sentence(error.message));
    } else {
      Object.assign(item, { id, multipart: multipart ?? null, post });
      keep(item, false);
      send(item);
    }
  }
}

function refuseAll(chosen, error) {
  const asking = chosen.filter((item) => item.state === "sending");
  const locked = error instanceof Refused && [401, 403].includes(error.status);
  for (const item of asking) {
    memory.delete(item.key);
    become(item, locked ? "ready" : "failed", locked ? "" : error.message);
  }
  if (locked) {
    askForKey();
  } else {
    notice(error.message);
  }
}

/** Send an item that has its permission; what goes wrong for good ends in its own words. */
async function send(item) {
  item.controller ??= new AbortController();
  const hooks = {
    signal: item.controller.signal,
    onSent: (bytes) => {
      item.sent = bytes;
      item.words = "";
      show(item);
    },
    onWait: (wait) => become(item, "sending",
      `The connection broke off. Next attempt in ${wording.duration(wait / 1000)}.`),
  };
  try {
    if (item.multipart) {
      await sendInParts(item.file, item.id, item.multipart, service, hooks);
    } else {
      await sendWhole(item.file, item.post, hooks);
    }
    stored(item);
  } catch (error) {
    if (item.state === "sending") {
      broken(item, error);
    }
  }
}

function broken(item, error) {
  const expired = (error instanceof BucketRefused && error.status === 403)
    || (error instanceof Refused && [401, 403, 404, 410].includes(error.status));
  if (expired && item.renewals < RENEWALS) {
    item.renewals += 1;
    begin([item]);
    return;
  }
  become(item, "failed", error.message);
  announce(`${item.card.name} could not be sent.`);
}

function stored(item) {
  item.sent = item.size;
  keep(item, true);
  become(item, "waiting", "Sent; it waits for its turn.");
  watcher.watch(item.id);
  if (!inState("sending").length) {
    announce("All files are sent.");
  }
}

function drop(id) {
  // What is not aborted, the bucket's lifecycle removes.
  service.abort(id).catch(() => {});
}

function cancel(item) {
  become(item, "cancelled");
  item.controller?.abort(new DOMException("Cancelled", "AbortError"));
  if (item.id && item.multipart) {
    drop(item.id);
  }
  Object.assign(item, { id: null, multipart: null, sent: 0 });
  memory.delete(item.key);
  announce(`${item.card.name} cancelled.`);
  item.card.update();
  item.card.element.querySelector("button:not([hidden])").focus();
}

function retry(item) {
  item.renewals = 0;
  if (item.id && item.multipart) {
    item.controller = new AbortController();
    become(item, "sending");
    send(item);
  } else {
    begin([item]);
  }
  item.card.update();
  item.card.element.querySelector("button:not([hidden])").focus();
}

// What becomes of it

function settle(answer) {
  const item = items.find((one) => one.id === answer.id);
  if (!item || !["waiting", "processing"].includes(item.state)) {
    return;
  }
  const final = {
    published: () => {
      become(item, "published");
      item.card.publish(answer.picture);
      announce(`${item.card.name} is published.`);
    },
    rejected: () => {
      become(item, "rejected", wording.rejection(answer));
      announce(`${item.card.name} was rejected. ${item.words}`);
    },
  }[answer.state];
  if (final) {
    memory.delete(item.key);
    final();
  } else if (answer.state === "processing" && item.state === "waiting") {
    become(item, "processing", "Sent; it is being processed.");
  }
}

// After a reload

async function resume() {
  const records = await memory.take();
  for (const { file, stored: whole, at: _, ...record } of records) {
    const item = add(file, record);
    item.type ||= record.type;
    if (whole) {
      item.sent = item.size;
      become(item, "waiting", "Sent; it waits for its turn.");
      watcher.watch(item.id);
    } else {
      item.card.preview();
      become(item, "sending", "Taken up again.");
      resumeOne(item);
    }
  }
  if (records.length) {
    announce(`${wording.files(records.length)} of your last visit taken up again.`);
  }
}

async function resumeOne(item) {
  if (item.id && item.multipart) {
    send(item);
  } else if (item.id && await isStored(item.id)) {
    stored(item);
  } else {
    begin([item]);
  }
}

async function isStored(id) {
  try {
    return (await service.state(id)).received === true;
  } catch {
    return false;
  }
}

// The source and its key

function askForKey() {
  const wrong = Boolean(sessionStorage.getItem(keyName(source())));
  byId("key-part").hidden = false;
  byId("key").setAttribute("aria-invalid", String(wrong));
  notice(wrong
    ? `This key does not open ${source()}. Check it, or ask for another one.`
    : `Who uploads to ${source()} needs an API key.`);
  byId("key").focus();
}

async function learn() {
  const name = source();
  limits = null;
  notice("");
  try {
    const answer = await service.limits(name);
    if (name !== source()) {
      return;
    }
    limits = answer;
    byId("limits").textContent = wording.limits(limits);
    byId("picker").accept = limits.types.join(",");
  } catch (error) {
    byId("limits").textContent = "";
    if (error instanceof Refused && [401, 403].includes(error.status)) {
      askForKey();
    } else {
      notice(error.message);
    }
  }
}

function listen() {
  const drop = byId("drop");
  const picker = byId("picker");
  picker.addEventListener("change", () => {
    choose(picker.files);
    // Or the same file could not be chosen again.
    picker.value = "";
  });
  // Files that miss the area would replace the page.
  for (const kind of ["dragover", "drop"]) {
    addEventListener(kind, (event) => event.preventDefault());
  }
  const hovers = (is) => () => drop.classList.toggle("over", is);
  addEventListener("dragenter", hovers(true));
  addEventListener("dragleave", (event) => event.relatedTarget ?? hovers(false)());
  addEventListener("drop", (event) => {
    hovers(false)();
    if (event.dataTransfer.files.length) {
      choose(event.dataTransfer.files);
    }
  });
  addEventListener("beforeunload", (event) => {
    if (inState("sending").some((item) => !item.kept)) {
      event.preventDefault();
    }
  });
  byId("send").addEventListener("click", upload);
  byId("clear").addEventListener("click", () => {
    inState("ready").forEach(remove);
    picker.focus();
  });
  byId("setup").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(keyName(source()), byId("key").value.trim());
    byId("key").removeAttribute("aria-invalid");
    learn();
  });
  byId("source").addEventListener("change", () => {
    inState("ready", "refused").forEach(remove);
    byId("key").value = "";
    byId("key-part").hidden = true;
    history.replaceState(null, "", `?source=${encodeURIComponent(source())}`);
    learn();
  });
}

async function start() {
  const wanted = new URLSearchParams(location.search).get("source");
  if ([...byId("source").options].some((option) => option.value === wanted)) {
    byId("source").value = wanted;
  }
  memory = await Memory.open();
  listen();
  await Promise.all([learn(), resume()]);
}

start();
