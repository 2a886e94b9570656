"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const views = JSON.parse(byId("views").textContent);
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
  tools.hidden = false;
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

  // The placeholder shows until the thumbnail has been decoded.
  for (const image of document.querySelectorAll(".frame img")) {
    if (!image.complete) {
      const frame = image.parentElement;
      frame.classList.add("waiting");
      const show = () => frame.classList.remove("waiting");
      image.addEventListener("load", show, { once: true });
      image.addEventListener("error", show, { once: true });
    }
  }

  // The viewer

  const viewer = byId("viewer");
  const stage = byId("stage");
  const status = byId("viewer-file");
  let list = [];
  let at = 0;
  let shape = [1, 1];

  const thumbnailOf = (card) => card.querySelector(".frame img");

  function fitted() {
    const style = getComputedStyle(stage);
    const inner = (size, one, other) => size - parseFloat(one) - parseFloat(other);
    const across = inner(stage.clientWidth, style.paddingLeft, style.paddingRight);
    const down = inner(stage.clientHeight, style.paddingTop, style.paddingBottom);
    const scale = Math.min(across / shape[0], down / shape[1], 1);
    return [Math.floor(shape[0] * scale), Math.floor(shape[1] * scale)];
  }

  function fit() {
    const image = stage.querySelector("img");
    if (image) {
      const [width, height] = fitted();
      image.style.width = `${width}px`;
      image.style.height = `${height}px`;
    }
  }

  function place(children, width, height) {
    shape = [width, height];
    const picture = document.createElement("picture");
    picture.append(...children);
    stage.replaceChildren(picture);
    fit();
  }

  function showThumbnail(card, note) {
    const thumbnail = thumbnailOf(card);
    if (thumbnail) {
      const image = new Image();
      image.alt = nameOf(card).textContent;
      image.src = thumbnail.src;
      place([image], thumbnail.width || 1, thumbnail.height || 1);
      shape = [Number(thumbnail.getAttribute("width")), Number(thumbnail.getAttribute("height"))];
      fit();
    } else {
      stage.replaceChildren();
    }
    status.textContent = note;
  }

  function showPublished(card, view) {
    const image = new Image();
    image.alt = nameOf(card).textContent;
    image.className = `p${card.id.slice("item-".length)}`;
    image.addEventListener("load", () => {
      status.textContent = view.files[image.currentSrc] || "";
    });
    image.addEventListener("error", () => {
      if (image.isConnected) {
        showThumbnail(card, "The server could not be reached; this is the embedded thumbnail.");
      }
    });
    shape = [view.width, view.height];
    const sizes = `${fitted()[0]}px`;
    const sources = view.sources.map(({ type, srcset }) => {
      const source = document.createElement("source");
      Object.assign(source, { type, sizes, srcset });
      return source;
    });
    status.textContent = "Loading";
    place([...sources, image], view.width, view.height);
    const last = view.sources[view.sources.length - 1];
    image.sizes = sizes;
    image.srcset = last.srcset;
  }

  function show(position) {
    at = (position + list.length) % list.length;
    const card = list[at];
    const view = views[Number(card.id.slice("item-".length))];
    byId("viewer-name").firstElementChild.textContent = nameOf(card).textContent;
    byId("viewer-place").textContent = `${at + 1} of ${list.length}`;
    if (view.sources.length) {
      showPublished(card, view);
    } else {
      showThumbnail(card, "No file of this picture has an address; this is the thumbnail.");
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
    thumbnailFocus();
  });
  window.addEventListener("resize", fit);

  // The reader goes on from the picture seen last, not from the one first opened.
  function thumbnailFocus() {
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
