// One file on the page: its picture, its state in words, and what can be done with it.

import { preview } from "./previews.js";
import { kind, readable, weight } from "./wording.js";

/** Formats in the order in which a browser is offered them: the first that it knows counts. */
const FORMATS = ["avif", "webp", "jpeg"];

/** How wide a card is: the columns of upload.css. */
const SIZES = "(min-width: 60rem) 18rem, (min-width: 30rem) 33vw, 50vw";

/** By state: what it is called, the colour of its badge, and which buttons it has. */
const STATES = {
  ready: ["Ready", "quiet", ["remove"]],
  refused: ["Not possible", "rejected", ["remove"]],
  sending: ["Sending", "duplicate", ["cancel"]],
  waiting: ["Waiting", "duplicate", []],
  processing: ["Processing", "duplicate", []],
  published: ["Published", "accepted", ["dismiss"]],
  rejected: ["Rejected", "rejected", ["dismiss"]],
  failed: ["Not sent", "failed", ["retry", "remove"]],
  cancelled: ["Cancelled", "quiet", ["retry", "remove"]],
};

export class Card {
  #gone = new AbortController();
  #published = false;

  /** `acts` are functions by the names of the buttons, each called with the item. */
  constructor(item, acts) {
    this.item = item;
    this.name = readable(item.name) || "a file without a name";
    const template = document.getElementById("card");
    this.element = template.content.firstElementChild.cloneNode(true);
    this.frame = this.#part(".frame");
    this.#part(".name bdi").textContent = this.name;
    this.#part(".stand-in").textContent = kind(item);
    this.#part(".size").textContent = weight(item.size);
    this.#part("progress").setAttribute("aria-label", `${this.name}, sent`);
    for (const button of this.element.querySelectorAll("button")) {
      button.setAttribute("aria-label", `${button.textContent}: ${this.name}`);
      button.addEventListener("click", () => acts[button.dataset.act](item));
    }
    this.update();
  }

  #part(selector) {
    return this.element.querySelector(selector);
  }

  /** Show the file itself; formats that the browser does not know keep their name. */
  async preview() {
    const drawn = await preview(this.item.file, this.#gone.signal);
    if (drawn && !this.#published) {
      this.frame.append(drawn);
    }
  }

  update() {
    const { state, words, sent, size } = this.item;
    const [label, colour, buttons] = STATES[state];
    const share = size ? Math.floor((sent / size) * 100) : 0;
    this.element.dataset.state = state;
    const badge = this.#part(".badge");
    badge.textContent = state === "sending" ? `${label} ${share} %` : label;
    badge.className = `badge ${colour}`;
    const bar = this.#part("progress");
    bar.hidden = state !== "sending";
    bar.value = share;
    this.#part(".words").textContent = words ?? "";
    for (const button of this.element.querySelectorAll("button")) {
      button.hidden = !buttons.includes(button.dataset.act);
    }
  }

  /** Put the published picture where the preview was, as soon as it can be drawn. */
  async publish(picture) {
    if (!picture?.src || this.#published) {
      return;
    }
    this.#published = true;
    this.#placehold(picture);
    const image = new Image(picture.width, picture.height);
    image.alt = this.name;
    const element = document.createElement("picture");
    const srcsets = typeof picture.srcset === "string" ? {} : (picture.srcset ?? {});
    for (const one of FORMATS.filter((name) => srcsets[name])) {
      const offer = { type: `image/${one}`, sizes: SIZES, srcset: srcsets[one] };
      element.append(Object.assign(document.createElement("source"), offer));
    }
    element.append(image);
    image.src = picture.src;
    try {
      await image.decode();
    } catch {
      // It is published all the same; the preview stays.
      return;
    }
    this.frame.append(element);
    const link = document.createElement("a");
    link.href = picture.src;
    link.target = "_blank";
    link.rel = "noopener";
    const name = this.#part(".name bdi");
    link.append(...name.childNodes);
    name.append(link);
    // Not before the fade, or the ground would flash through.
    setTimeout(() => this.frame.querySelector("canvas")?.remove(), 600);
  }

  // A page that was reloaded has no preview: the blurred one of the manifest is the next best.
  #placehold({ dominant_color: colour, placeholder }) {
    if (!this.frame.querySelector("canvas")) {
      this.frame.style.backgroundColor = colour ?? "";
      this.frame.style.backgroundImage = placeholder ? `url("${placeholder}")` : "";
    }
  }

  remove() {
    this.#gone.abort();
    this.element.remove();
  }
}
