// The map of the rows: points on a canvas, with a tip for the pointer and for the arrow keys.
"use strict";
(() => {
  const canvas = document.getElementById("map-canvas");
  if (!canvas) return;
  const data = JSON.parse(document.getElementById("map-data").textContent);
  const tip = document.getElementById("map-tip");
  const n = data.x.length;
  const margin = 18;
  let width = 0, height = 0, chosen = -1;

  const along = (values) => [...values.keys()].sort((a, b) => values[a] - values[b]);
  const orders = { x: along(data.x), y: along(data.y) };
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const px = (i) => margin + data.x[i] * (width - 2 * margin);
  const py = (i) => height - margin - data.y[i] * (height - 2 * margin);

  const rgb = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));
  const mix = (a, b, t) => `rgb(${a.map((v, k) => Math.round(v + (b[k] - v) * t)).join(" ")})`;

  function palette() {
    if (data.names) {
      const all = data.names.map((_, k) => colour(`--c${k % 10}`));
      return (v) => all[v];
    }
    const [low, mid, high] = ["--low", "--mid", "--high"].map((name) => rgb(colour(name)));
    return (v) => (v < 0.5 ? mix(low, mid, 2 * v) : mix(mid, high, 2 * v - 1));
  }

  function draw() {
    const box = canvas.getBoundingClientRect();
    const scale = window.devicePixelRatio || 1;
    width = box.width;
    height = box.height;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const ctx = canvas.getContext("2d");
    ctx.scale(scale, scale);
    const of = palette();
    const radius = n > 800 ? 2.6 : n > 250 ? 3.2 : 4;
    ctx.globalAlpha = n > 400 ? 0.75 : 0.85;
    for (let i = 0; i < n; i++) dot(ctx, i, radius, of(data.c[i]));
    ctx.globalAlpha = 1;
    if (data.names) names(ctx);
    if (chosen >= 0) ring(ctx, of(data.c[chosen]));
  }

  function dot(ctx, i, radius, fill) {
    ctx.fillStyle = fill;
    ctx.beginPath();
    ctx.arc(px(i), py(i), radius, 0, 2 * Math.PI);
    ctx.fill();
  }

  function ring(ctx, fill) {
    dot(ctx, chosen, 6, fill);
    ctx.strokeStyle = colour("--ink");
    ctx.lineWidth = 2;
    ctx.beginPath();
    ctx.arc(px(chosen), py(chosen), 8.5, 0, 2 * Math.PI);
    ctx.stroke();
  }

  // Each group bears its name in its middle, so that colour is not the only way to tell them apart.
  function names(ctx) {
    ctx.font = "600 13px system-ui, sans-serif";
    ctx.textAlign = "center";
    ctx.textBaseline = "middle";
    ctx.lineWidth = 4;
    ctx.lineJoin = "round";
    ctx.strokeStyle = colour("--panel");
    ctx.fillStyle = colour("--ink");
    data.names.forEach((name, k) => {
      const mine = [...Array(n).keys()].filter((i) => data.c[i] === k);
      if (!mine.length) return;
      const middle = (at) => mine.map(at).sort((a, b) => a - b)[mine.length >> 1];
      const text = name.length > 16 ? name.slice(0, 15) + "\u2026" : name;
      const half = ctx.measureText(text).width / 2 + 6;
      const x = Math.min(width - half, Math.max(half, middle(px)));
      ctx.strokeText(text, x, middle(py));
      ctx.fillText(text, x, middle(py));
    });
  }

  function thumbnail() {
    if (!data.sheet || chosen >= data.kept) return null;
    const [w, h] = data.size;
    const small = document.createElement("canvas");
    small.width = w;
    small.height = h;
    small.setAttribute("aria-hidden", "true");
    if (data.ink) small.className = "ink";
    small.getContext("2d").drawImage(sheet, (chosen % data.across) * w, Math.floor(chosen / data.across) * h, w, h, 0, 0, w, h);
    return small;
  }

  function show(i) {
    if (i === chosen) return;
    chosen = i;
    tip.replaceChildren();
    if (i >= 0) {
      const picture = thumbnail();
      const label = data.names ? `${data.names[data.c[i]]}, ` : "";
      if (picture) tip.append(picture);
      tip.append(`${label}row ${data.row[i]}: log p(x) ${data.p[i].toFixed(2).replace("-", "\u2212")} nats`);
      const left = px(i) > width / 2;
      tip.style.left = left ? "auto" : `${px(i) + 14}px`;
      tip.style.right = left ? `${width - px(i) + 14}px` : "auto";
      tip.style.top = `${Math.max(4, Math.min(py(i) - 16, height - (picture ? 120 : 44)))}px`;
    }
    draw();
  }

  function nearest(x, y) {
    let best = -1, reach = 18 * 18;
    for (let i = 0; i < n; i++) {
      const away = (px(i) - x) ** 2 + (py(i) - y) ** 2;
      if (away < reach) [best, reach] = [i, away];
    }
    return best;
  }

  function walk(order, by) {
    const at = chosen < 0 ? (by > 0 ? -1 : n) : order.indexOf(chosen);
    show(order[Math.min(n - 1, Math.max(0, at + by))]);
  }

  const moves = {
    ArrowRight: () => walk(orders.x, 1),
    ArrowLeft: () => walk(orders.x, -1),
    ArrowUp: () => walk(orders.y, 1),
    ArrowDown: () => walk(orders.y, -1),
    Home: () => show(orders.x[0]),
    End: () => show(orders.x[n - 1]),
    Escape: () => show(-1),
  };
  canvas.addEventListener("keydown", (event) => {
    if (!moves[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    moves[event.key]();
  });
  const pointed = (event) => {
    const box = canvas.getBoundingClientRect();
    show(nearest(event.clientX - box.left, event.clientY - box.top));
  };
  canvas.addEventListener("pointermove", pointed);
  canvas.addEventListener("pointerdown", pointed);
  canvas.addEventListener("pointerleave", () => show(-1));
  canvas.addEventListener("blur", () => show(-1));

  const sheet = new Image();
  if (data.sheet) sheet.src = data.sheet;
  new ResizeObserver(draw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
