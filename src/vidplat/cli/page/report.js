// Filters, sorting, and posters that play on hover or click. Without it every video still has its own controls.
"use strict";
(() => {
  const page = document.documentElement, grid = document.querySelector(".grid");
  if (!grid) return;
  page.classList.add("live");
  const cards = [...grid.querySelectorAll(".card")];
  const find = (name) => document.querySelector(`[data-control="${name}"]`);
  const text = find("text"), state = find("state"), quality = find("quality"), order = find("order"), all = find("all");
  const shown = find("shown"), empty = document.querySelector(".empty");
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches, hovers = matchMedia("(hover: hover)").matches;

  // 1. filters
  const words = new Map(cards.map((card) => [card, card.querySelector("h3").textContent.toLowerCase()]));
  const filter = () => {
    const wanted = text.value.trim().toLowerCase().split(/\s+/);
    let visible = 0;
    for (const card of cards) {
      const fits = wanted.every((word) => words.get(card).includes(word))
        && (!state.value || card.dataset.state === state.value || (state.value === "late" && card.dataset.late))
        && (!quality.value || card.dataset.quality === quality.value);
      card.hidden = !fits;
      visible += fits;
      if (!fits) stop(card);
    }
    shown.textContent = visible === cards.length ? `${visible} shown` : `${visible} of ${cards.length} shown`;
    empty.hidden = visible > 0;
  };
  const sort = () => {
    const key = order.value, sign = key === "seconds" ? -1 : 1;
    const of = (card) => Number(card.dataset[key] ?? Infinity);
    grid.append(...[...cards].sort((a, b) => sign * (of(a) - of(b)) || a.dataset.row - b.dataset.row));
  };

  // 2. videos
  const video = (card) => card.querySelector("video");
  const play = (card) => { const it = video(card); if (it) { it.play().catch(() => {}); card.classList.add("playing"); } };
  const stop = (card) => {
    const it = video(card);
    if (it && !it.paused) { it.pause(); it.currentTime = 0; }
    card.classList.remove("playing");
  };
  const pin = (card, on) => {
    const button = card.querySelector(".play");
    if (!button) return;
    button.setAttribute("aria-pressed", on);
    on ? play(card) : stop(card);
  };
  const pinned = (card) => card.querySelector(".play")?.getAttribute("aria-pressed") === "true";
  for (const card of cards) {
    const it = video(card);
    if (!it) continue;
    it.controls = false;
    it.muted = it.loop = it.playsInline = true;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "play";
    button.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-label", `Play: ${card.querySelector("h3").textContent}`);
    it.after(button);
    button.addEventListener("click", () => pin(card, !pinned(card)));
    if (hovers && !still) {
      button.addEventListener("pointerenter", () => play(card));
      button.addEventListener("pointerleave", () => { if (!pinned(card)) stop(card); });
    }
  }

  // 3. play all: those on screen, as they come
  const eye = new IntersectionObserver((seen) => {
    if (all.getAttribute("aria-pressed") === "true")
      for (const { target, isIntersecting } of seen) isIntersecting ? play(target) : stop(target);
  });
  all.addEventListener("click", () => {
    const on = all.getAttribute("aria-pressed") !== "true";
    all.setAttribute("aria-pressed", on);
    all.textContent = on ? "Stop all" : "Play all";
    for (const card of cards) { eye.unobserve(card); on ? eye.observe(card) : pin(card, false); }
  });

  for (const control of [text, state, quality]) control.addEventListener("input", filter);
  order.addEventListener("input", sort);
  filter();
})();
