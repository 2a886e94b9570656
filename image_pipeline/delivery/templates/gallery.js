"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const tools = byId("tools");
  const search = byId("search");
  const buttons = [...tools.querySelectorAll("[data-filter]")];
  const entries = [...document.querySelectorAll("[data-verdict]")];
  const nameOf = (entry) => entry.querySelector(".name");
  let verdict = "all";

  // Filters

  function filter() {
    const wanted = search.value.trim().toLowerCase();
    let count = 0;
    for (const entry of entries) {
      const fits =
        (verdict === "all" || entry.dataset.verdict === verdict) &&
        nameOf(entry).title.toLowerCase().includes(wanted);
      entry.hidden = !fits;
      count += fits ? 1 : 0;
    }
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(button.dataset.filter === verdict));
    }
    for (const section of document.querySelectorAll("main > section")) {
      section.hidden = !section.querySelector("[data-verdict]:not([hidden])");
    }
    byId("nothing").hidden = count > 0;
    byId("shown").textContent =
      count === entries.length ? "" : `${count} of ${entries.length} shown`;
  }

  for (const button of buttons) {
    button.addEventListener("click", () => {
      verdict = button.dataset.filter;
      filter();
    });
  }
  search.addEventListener("input", filter);
  tools.addEventListener("submit", (event) => event.preventDefault());
  filter();

  // A link to a picture that a filter has hidden shows everything first.
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#item-"]');
    if (link && byId(link.hash.slice(1)).hidden) {
      verdict = "all";
      search.value = "";
      filter();
    }
  });

  // The placeholder shows until the picture has been loaded, and where it cannot be.
  for (const image of document.querySelectorAll(".frame img")) {
    // One that has failed already is complete, and has no size.
    if (!image.complete || !image.naturalWidth) {
      const frame = image.closest(".frame");
      frame.classList.add("waiting");
      image.addEventListener("load", () => frame.classList.remove("waiting"), { once: true });
    }
  }

  // The viewer

  const viewer = byId("viewer");
  const stage = byId("stage");
  const status = byId("viewer-file");
  let list = [];
  let at = 0;
  let shape = [1, 1];

  const pictureOf = (card) => card.querySelector(".frame img");
  const placeholderOf = (card) => `p${card.id.slice("item-".length)}`;

  function fitted() {
    const style = getComputedStyle(stage);
    const inner = (size, one, other) => size - parseFloat(one) - parseFloat(other);
    const across = inner(stage.clientWidth, style.paddingLeft, style.paddingRight);
    const down = inner(stage.clientHeight, style.paddingTop, style.paddingBottom);
    const scale = Math.min(across / shape[0], down / shape[1], 1);
    return [Math.floor(shape[0] * scale), Math.floor(shape[1] * scale)];
  }

  function fit() {
    const shown = stage.querySelector(".shown");
    if (shown) {
      const [width, height] = fitted();
      shown.style.width = `${width}px`;
      shown.style.height = `${height}px`;
    }
  }

  function place(card, shown, sources = []) {
    const picture = document.createElement("picture");
    shown.classList.add("shown", placeholderOf(card));
    picture.append(...sources, shown);
    stage.replaceChildren(picture);
    fit();
  }

  // What the card shows, or its placeholder, where no file can be loaded.
  function showStandIn(card, note) {
    const picture = pictureOf(card);
    const loaded = picture && picture.complete && picture.naturalWidth > 0;
    const shown = document.createElement(loaded ? "img" : "div");
    if (loaded) {
      shape = [picture.naturalWidth, picture.naturalHeight];
      shown.alt = nameOf(card).textContent;
      shown.src = picture.currentSrc;
    } else {
      shown.setAttribute("role", "img");
      shown.setAttribute("aria-label", nameOf(card).textContent);
    }
    place(card, shown);
    status.textContent = note;
  }

  // The files of a card by media type, in the order of its table: best first, then by width.
  function filesOf(card) {
    const files = new Map();
    for (const link of card.querySelectorAll(".files a[type]")) {
      files.set(link.type, [...(files.get(link.type) || []), link]);
    }
    return files;
  }

  const wordsOn = (link) =>
    [...link.closest("tr").cells].slice(1).map((cell) => cell.textContent).join(", ");

  function showPublished(card, files) {
    const links = [...files.values()].flat();
    const largest = links.reduce((one, other) =>
      Number(other.dataset.width) > Number(one.dataset.width) ? other : one);
    shape = [Number(largest.dataset.width), Number(largest.dataset.height)];
    const image = new Image();
    image.alt = nameOf(card).textContent;
    image.addEventListener("load", () => {
      const link = links.find((one) => one.href === image.currentSrc);
      status.textContent = link ? wordsOn(link) : "";
    });
    image.addEventListener("error", () => {
      if (image.isConnected) {
        showStandIn(card, "The server could not be reached; this is the preview.");
      }
    });
    const sizes = `${fitted()[0]}px`;
    const offers = [...files].map(([type, ones]) => {
      const srcset = ones.map((one) => `${one.href} ${one.dataset.width}w`).join(", ");
      return Object.assign(document.createElement("source"), { type, sizes, srcset });
    });
    const last = offers.pop();
    status.textContent = "Loading";
    place(card, image, offers);
    image.sizes = sizes;
    image.srcset = last.srcset;
  }

  function show(position) {
    at = (position + list.length) % list.length;
    const card = list[at];
    const files = filesOf(card);
    byId("viewer-name").firstElementChild.textContent = nameOf(card).textContent;
    byId("viewer-place").textContent = `${at + 1} of ${list.length}`;
    if (files.size) {
      showPublished(card, files);
    } else {
      showStandIn(card, "No file of this picture has an address; this is the preview.");
    }
  }

  const visibleCards = () => entries.filter((entry) => entry.matches(".card:not([hidden])"));

  for (const frame of document.querySelectorAll(".frame")) {
    frame.addEventListener("click", () => {
      list = visibleCards();
      viewer.showModal();
      show(list.indexOf(frame.closest(".card")));
    });
  }
  const keys = {
    ArrowLeft: () => show(at - 1),
    ArrowRight: () => show(at + 1),
    Home: () => show(0),
    End: () => show(list.length - 1),
  };
  viewer.addEventListener("keydown", (event) => {
    const act = keys[event.key];
    if (act && !event.altKey && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      act();
    }
  });
  byId("previous").addEventListener("click", keys.ArrowLeft);
  byId("next").addEventListener("click", keys.ArrowRight);
  byId("close").addEventListener("click", () => viewer.close());
  stage.addEventListener("click", (event) => {
    if (event.target === stage) {
      viewer.close();
    }
  });
  viewer.addEventListener("close", () => {
    stage.replaceChildren();
    focusCard();
  });
  window.addEventListener("resize", fit);

  // The reader goes on from the picture seen last, not from the one first opened.
  function focusCard() {
    list[at].querySelector(".frame").focus();
  }

  let from = null;
  stage.addEventListener("pointerdown", (event) => {
    from = event.pointerType === "mouse" ? null : event.clientX;
  });
  stage.addEventListener("pointerup", (event) => {
    // 48 CSS pixels are about a fingertip; less is a tap.
    if (from !== null && Math.abs(event.clientX - from) > 48) {
      show(at + (event.clientX < from ? 1 : -1));
    }
    from = null;
  });
})();
