// Runs in every page before its own scripts: sums up layout shifts and CSP violations.
window.shifts = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) {
    const moved = entry.sources.map(({ node, previousRect, currentRect }) =>
      `${node?.nodeName} .${node?.className} ${previousRect.y} -> ${currentRect.y}`);
    window.shifts.push({ value: entry.value, moved });
  }
}).observe({ type: "layout-shift", buffered: true });
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`);
});

// Pictures any part of which is inside the window.
window.pictureInView = (image) => {
  const box = image.getBoundingClientRect();
  return box.width > 0 && box.bottom > 0 && box.top < innerHeight;
};

// Resolves when all of them have been loaded and drawn; one that fails is an error.
window.settled = async () => {
  const drawn = () => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)));
  await drawn();
  const waiting = () => [...document.images]
    .filter((image) => window.pictureInView(image) && !image.complete);
  for (let images = waiting(); images.length; images = waiting()) {
    await Promise.all(images.map((image) => new Promise((go, fail) => {
      image.addEventListener("load", go, { once: true });
      image.addEventListener("error", () => fail(new Error(image.currentSrc)), { once: true });
    })));
    await drawn();
  }
};

// What a browser is offered for an image by the rules of HTML: its source size in CSS pixels and
// the candidates of the first <source> of a known type, else of the image itself.
window.offerOf = (image, known) => {
  const sources = [...image.parentElement.querySelectorAll(":scope > source")];
  const source = sources.find((one) => known.includes(one.type)) || image;
  const candidates = source.srcset.split(/,\s+/).map((text) => {
    const [url, width] = text.trim().split(/\s+/);
    return [new URL(url, location).href, Number.parseInt(width, 10)];
  });
  const probe = document.body.appendChild(document.createElement("div"));
  probe.style.position = "absolute";
  for (const part of (source.sizes || "100vw").split(/,(?![^(]*\))/)) {
    const [, condition, length] = part.trim().match(/^(\([^()]*\)\s+)?(.+)$/);
    if (!condition || matchMedia(condition.trim()).matches) {
      probe.style.width = length;
      break;
    }
  }
  const size = probe.getBoundingClientRect().width;
  probe.remove();
  return { size, candidates };
};
