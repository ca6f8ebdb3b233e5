"use strict";
// Reward curves with zoom and smoothing, entropy heat maps, denoising replays. Without this script
// the page shows them as static figures.
// a page with a chart has a static figure of it
const SVG = document.querySelector("svg")?.namespaceURI;
const COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#DD0044", "#AA33FF"];
const DASHES = ["", "7 4", "2 3", "8 3 2 3"];

function make(tag, attributes, parent, text) {
  const element = tag.startsWith("svg:")
    ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

function content(root) {
  return JSON.parse(root.querySelector("script[type='application/json']").textContent);
}

// time-weighted EMA, debiased: values decay with the distance in steps
function smooth(steps, values, smoothing) {
  const weight = Math.min(Math.sqrt(smoothing), 0.999);
  const span = (steps[steps.length - 1] - steps[0]) || 1;
  let last = 0, debias = 0;
  return values.map((value, i) => {
    const gap = i === 0 ? 0 : (steps[i] - steps[i - 1]) / span * 1000;
    const keep = weight === 0 ? 0 : weight ** gap;
    last = last * keep + value;
    debias = debias * keep + 1;
    return last / debias;
  });
}

function ticks(low, high, count) {
  const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
  const unit = [1, 2, 5, 10].map(k => k * power).find(step => step >= raw);
  const values = [];
  for (let i = Math.ceil(low / unit); i * unit <= high + 1e-9 * unit; i++) {
    values.push(Number((i * unit).toPrecision(6)));
  }
  return values;
}

// not Math.min(...values): the number of arguments of a call is limited
const range = values => values.reduce(([low, high], value) =>
  [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);

function chart(root) {
  const data = content(root), width = 720, height = 380;
  const box = { left: 52, right: 12, top: 12, bottom: 40 };  // left and bottom grow with the text
  const full = range(data.lines.flatMap(line => line.steps));
  let [from, to] = full, smoothing = data.smoothing;
  const visible = data.lines.map(() => true);
  const bar = make("div", { class: "controls" });
  const picture = make("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": data.title });

  const field = (name, attributes, parent = bar) => {
    const holder = make("label", {}, parent, `${name} `);
    return make("input", attributes, holder);
  };
  data.lines.forEach((line, i) => {
    const tick = field("", { type: "checkbox", checked: "" });
    const key = make("svg:svg", { viewBox: "0 0 26 8", class: "key-line", "aria-hidden": "true" },
      tick.parentElement);
    make("svg:line", { x1: 0, y1: 4, x2: 26, y2: 4, stroke: COLORS[i % 6], "stroke-width": 3,
      "stroke-dasharray": DASHES[Math.floor(i / 6) % 4] }, key);
    tick.parentElement.append(` ${line.label}`);
    tick.addEventListener("change", () => { visible[i] = tick.checked; draw(); });
  });
  const slider = field("smoothing", { type: "range", min: 0, max: 0.999, step: 0.001,
    value: smoothing });
  const output = make("output", {}, slider.parentElement, smoothing);
  slider.addEventListener("input", () => {
    smoothing = Number(slider.value); output.textContent = smoothing; draw();
  });
  const first = field("from step", { type: "number", min: full[0], max: full[1], value: from });
  const end = field("to step", { type: "number", min: full[0], max: full[1], value: to });
  const zoom = (low, high) => {
    [low, high] = [Math.max(low, full[0]), Math.min(high, full[1])];
    if (high > low) [from, to] = [low, high];
    // fields show the range that is drawn
    first.value = Math.round(from); end.value = Math.round(to); draw();
  };
  for (const input of [first, end]) {
    input.addEventListener("change", () => zoom(Number(first.value), Number(end.value)));
  }
  make("button", { type: "button" }, bar, "full run").addEventListener("click",
    () => zoom(...full));

  const x = step => box.left + (step - from) / ((to - from) || 1) * (width - box.left - box.right);
  function draw() {
    picture.replaceChildren();
    const drawn = data.lines.flatMap((line, i) => {
      if (!visible[i]) return [];
      const inside = line.steps.map(step => step >= from && step <= to);
      const cut = row => row.filter((_, k) => inside[k]);
      const runs = line.runs.map(run => smooth(line.steps, run, smoothing));
      const mean = rows => rows[0].map((_, k) => rows.reduce((sum, row) => sum + row[k], 0)
        / rows.length);
      const middle = mean(runs), n = runs.length;
      const half = middle.map((m, k) => n < 2 ? 0 : line.t * Math.sqrt(
        runs.reduce((sum, row) => sum + (row[k] - m) ** 2, 0) / (n - 1) / n));
      // rewards are in [0, 1] unless weighted
      const [least, most] = range(line.runs.flat());
      const below = middle.map((m, k) => least < 0 ? m - half[k] : Math.max(0, m - half[k]));
      const above = middle.map((m, k) => most > 1 ? m + half[k] : Math.min(1, m + half[k]));
      return [{ i, n, steps: cut(line.steps), raw: cut(mean(line.runs)), middle: cut(middle),
        below: cut(below), above: cut(above) }];
    }).filter(line => line.steps.length > 0);
    const values = drawn.flatMap(line => [...line.raw, ...line.below, ...line.above]);
    const [low, high] = values.length ? range(values) : [0, 1];
    const room = 0.05 * (high - low) || 0.05;
    // before the picture is in the page its text has no size
    const size = parseFloat(getComputedStyle(picture).fontSize) || 13;
    const levels = ticks(low - room, high + room, 5);
    // a digit is about 0.6 of the size wide
    box.left = 8 + 0.65 * size * range(levels.map(value => String(value).length))[1];
    box.bottom = 10 + 2.3 * size;
    const y = value => height - box.bottom - (value - low + room) / (high - low + 2 * room)
      * (height - box.top - box.bottom);
    for (const value of levels) {
      make("svg:line", { x1: box.left, x2: width - box.right, y1: y(value), y2: y(value),
        class: "grid-line" }, picture);
      make("svg:text", { x: box.left - 8, y: y(value) + 0.33 * size, "text-anchor": "end" }, picture, value);
    }
    for (const step of ticks(from, to, 6)) {
      make("svg:text", { x: x(step), y: height - box.bottom + 5 + size, "text-anchor": "middle" },
        picture, step);
    }
    make("svg:text", { x: (width + box.left) / 2, y: height - 4, "text-anchor": "middle" },
      picture, "step");
    for (const line of drawn) {
      const color = COLORS[line.i % 6];
      const path = (rows, attributes) => make("svg:path", Object.assign({ fill: "none",
        stroke: color, d: line.steps.map((step, k) =>
          `${k ? "L" : "M"}${x(step).toFixed(1)} ${y(rows[k]).toFixed(1)}`).join("") },
        attributes), picture);
      if (line.n > 1) {
        const edge = side => line.steps.map((step, k) =>
          `${x(step).toFixed(1)} ${y(side[k]).toFixed(1)}`);
        make("svg:path", { fill: color, "fill-opacity": 0.15, stroke: "none",
          d: `M${edge(line.above).join("L")}L${edge(line.below).reverse().join("L")}Z` }, picture);
      }
      path(line.raw, { "stroke-opacity": 0.6 });
      path(line.middle, { "stroke-width": 2.5, class: "bold",
        "stroke-dasharray": DASHES[Math.floor(line.i / 6) % 4] });
    }
  }
  let start = null, selection = null;
  const stepAt = event => {
    const bounds = picture.getBoundingClientRect();
    const left = (event.clientX - bounds.left) / bounds.width * width;
    return from + (left - box.left) / (width - box.left - box.right) * (to - from);
  };
  picture.addEventListener("pointerdown", event => {
    start = stepAt(event);
    // a drag may end outside the picture
    picture.setPointerCapture(event.pointerId);
    selection = make("svg:rect", { class: "selection", x: x(start), y: box.top, width: 0,
      height: height - box.top - box.bottom }, picture);
  });
  picture.addEventListener("pointermove", event => {
    if (start === null) return;
    const [left, right] = range([start, stepAt(event)].map(x));
    selection.setAttribute("x", left); selection.setAttribute("width", right - left);
  });
  const release = () => { start = null; selection?.remove(); };
  picture.addEventListener("pointercancel", release);
  picture.addEventListener("pointerup", event => {
    const ends = range([start ?? stepAt(event), stepAt(event)]);
    release();
    // a click does not zoom
    if (ends[1] - ends[0] > 0.02 * (to - from)) zoom(...ends);
  });
  draw();
  root.querySelector(".static").replaceWith(bar, picture);
  draw();
  addEventListener("resize", draw);
}

function entropyHeatmap(root) {
  const slider = root.querySelector("input"), output = root.querySelector("output");
  const line = root.querySelector(".details");
  const tokens = [...root.querySelectorAll(".token")];
  const probability = token => 1 - (1 - Number(slider.value)) ** Number(token.dataset.ratio);
  const describe = token => {
    line.textContent = `${token.dataset.name}: entropy ${token.dataset.entropy} nats, `
      + `beta ${token.dataset.beta}, t_i ${probability(token).toFixed(3)}`;
  };
  const update = () => {
    output.textContent = Number(slider.value).toFixed(2);
    for (const token of tokens) token.style.setProperty("--heat", probability(token).toFixed(3));
  };
  for (const token of tokens) {
    token.addEventListener("pointerenter", () => describe(token));
    token.addEventListener("focus", () => {
      // one tab stop for all tokens: the one focused last
      for (const other of tokens) other.tabIndex = other === token ? 0 : -1;
      describe(token);
    });
  }
  root.querySelector(".response").addEventListener("keydown", event => {
    const at = tokens.indexOf(event.target), last = tokens.length - 1;
    const to = { ArrowRight: Math.min(at + 1, last), ArrowLeft: Math.max(at - 1, 0), Home: 0,
      End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    tokens[to].focus();
  });
  slider.addEventListener("input", update);
  root.querySelector(".controls").hidden = false;
  update();
}

function denoisingReplay(root) {
  const data = content(root), slider = root.querySelector("input");
  const output = root.querySelector("output"), button = root.querySelector("button");
  const tokens = [...root.querySelectorAll(".token")];
  let timer = null;
  const show = () => {
    const step = Number(slider.value);
    output.textContent = `step ${step} of ${data.steps}`;
    tokens.forEach((token, i) => {
      const known = data.opened[i] <= step;
      token.textContent = known ? data.tokens[i] : "▒";
      token.classList.toggle("new", data.opened[i] === step);
      token.title = known ? `step ${data.opened[i]}, confidence ${data.confidences[i]}` : "";
    });
  };
  const stop = () => { clearInterval(timer); timer = null; button.textContent = "play"; };
  button.addEventListener("click", () => {
    if (timer !== null) { stop(); return; }
    if (Number(slider.value) >= data.steps) slider.value = 0;
    button.textContent = "pause";
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      show();
      if (Number(slider.value) >= data.steps) stop();
    }, 250);
  });
  slider.addEventListener("input", () => { if (timer !== null) stop(); show(); });
  root.querySelector(".controls").hidden = false;
  show();
}

const WIDGETS = { chart, entropy_heatmap: entropyHeatmap, denoising_replay: denoisingReplay };
for (const [name, start] of Object.entries(WIDGETS)) {
  for (const root of document.querySelectorAll(`[data-widget='${name}']`)) {
    // a widget that fails stays a static figure, and the others start
    try { start(root); } catch (error) { console.error(error); }
  }
}
