"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const count = data.towers.name.length, checkpoints = data.checkpoints.length, levels = data.stages.length;
const last = checkpoints - 1, PAGE = 50, PRINTED = 900;
const KINDS = {f4: Float32Array, f8: Float64Array, u1: Uint8Array, u2: Uint16Array, u4: Uint32Array};

// Figures.
function unpack(packed) {
  const text = atob(packed.data), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const values = new KINDS[packed.type](bytes.buffer), once = values.length === count;
  return (c, t) => values[once ? t : c * count + t];
}
const figures = {};
for (const [name, parts] of Object.entries(data.figures)) {
  const read = parts.map(unpack);
  figures[name] = (c, t, l) => read[l](c, t);
}
const fixedAt = unpack(data.fixed);
const fixed = (c, t) => { const l = fixedAt(c, t); return l === 255 ? NaN : l; };
function honest(c, t) {
  let best = NaN, least = Infinity;
  for (let l = 0; l < levels; l++) {
    const bits = figures.bits_per_weight(c, t, l);
    if (bits < least) { least = bits; best = l; }
  }
  return best;
}
const tensors = [], pooled = [];
data.towers.scope.forEach((scope, t) => (scope === 0 ? tensors : pooled).push(t));
// The model first: one width is the model, and is not said twice.
pooled.sort((a, b) => data.towers.scope[b] - data.towers.scope[a]);
if (pooled.length === 2) pooled.splice(1, 1);
const title = (t) => data.towers.scope[t] === 1 ? "width " + data.towers.name[t] : data.towers.name[t];

// Words.
const digits = (n) => (v) => Number.isNaN(v) || v === undefined ? "-" : Math.abs(v) < 1e5 ? v.toFixed(n) : v.toExponential(1);
const whole = (v) => Number.isNaN(v) || v === undefined ? "-" : v.toLocaleString("en-US");
const signed = (n) => (v) => Number.isNaN(v) ? "-" : (v > 0 ? "+" : "") + digits(n)(v);
function make(name, attributes = {}, ...children) {
  const svg = ["svg", "polyline", "line", "text", "rect", "circle"].includes(name);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// What is shown.
const hash = new URLSearchParams(location.hash.slice(1));
const between = (text, least, most, otherwise) => {
  const number = parseInt(text, 10);
  return number >= least && number <= most ? number : otherwise;
};
const state = {
  checkpoint: between(hash.get("checkpoint"), 0, last, last),
  level: between(hash.get("level"), 0, levels - 1, Math.min(1, levels - 1)),
  sort: hash.get("sort") || "", down: hash.get("down") !== "0", filter: hash.get("filter") || "",
  page: 0, tower: pooled[0] ?? 0,
};
const now = (name) => (t) => figures[name](state.checkpoint, t, state.level);
const COLUMNS = [
  {key: "name", label: "tensor", get: (t) => data.towers.name[t], show: (v) => v},
  {key: "rows", label: "rows", get: (t) => data.towers.rows[t], show: whole},
  {key: "width", label: "width", get: (t) => data.towers.width[t], show: whole},
  {key: "n_components", label: "kept", get: now("n_components"), show: whole},
  {key: "params", label: "params", get: now("params"), show: whole},
  {key: "r2", label: "R2", get: now("r2"), show: digits(4)},
  {key: "null_r2", label: "null", get: now("null_r2"), show: digits(4)},
  {key: "lift", label: "lift", get: now("lift"), show: signed(4), tone: 1},
  {key: "svd_bound_r2", label: "low rank", get: now("svd_bound_r2"), show: digits(4)},
  {key: "participation_ratio", label: "PR", get: now("participation_ratio"), show: digits(2)},
  {key: "null_participation_ratio", label: "null PR", get: now("null_participation_ratio"), show: digits(2)},
  {key: "bits_per_weight", label: "bits/weight", get: now("bits_per_weight"), show: digits(3)},
  {key: "fixed_point", label: "fixed", get: (t) => fixed(state.checkpoint, t), show: whole},
  {key: "honest", label: "honest", get: (t) => honest(state.checkpoint, t), show: whole},
];
if (checkpoints > 1) {
  COLUMNS.push({key: "change", label: "R2 over steps", show: signed(4), tone: 1,
    get: (t) => figures.r2(last, t, state.level) - figures.r2(0, t, state.level)});
}
const OWN = {change: "R2 at the last checkpoint less that at the first, at this level.", honest: "Level with the fewest bits at R2 0.99."};
const meaning = (key) => data.meanings[key] || OWN[key] || "";

// Tables.
function sorted() {
  const wanted = state.filter.toLowerCase();
  const found = wanted ? tensors.filter((t) => data.towers.name[t].toLowerCase().includes(wanted)) : tensors.slice();
  const column = COLUMNS.find((one) => one.key === state.sort);
  if (!column) return found;
  const values = new Map(found.map((t) => [t, column.get(t)])), sign = state.down ? -1 : 1;
  const unknown = (v) => typeof v === "number" && Number.isNaN(v);
  return found.sort((a, b) => {
    const x = values.get(a), y = values.get(b);
    if (unknown(x) || unknown(y)) return unknown(x) - unknown(y);
    return x < y ? -sign : x > y ? sign : a - b;
  });
}
function head(columns, sorts) {
  const row = make("tr");
  for (const column of columns) {
    const cell = make("th", {title: meaning(column.key), scope: "col"});
    if (column.key === "stage") cell.className = "left";
    if (sorts) {
      if (state.sort === column.key) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      const button = make("button", {type: "button"}, column.label);
      button.addEventListener("click", () => {
        const text = column.key === "name";
        state.down = state.sort === column.key ? !state.down : !text;
        state.sort = column.key;
        state.page = 0;
        drawTensors();
      });
      cell.append(button);
    } else cell.append(column.label);
    row.append(cell);
  }
  return make("thead", {}, row);
}
function cell(column, t) {
  const value = column.get(t), node = make("td");
  node.append(...column.key === "name" ? parted(value) : [column.show(value)]);
  if (column.tone && value) node.className = value > 0 ? "above" : "below";
  return node;
}
// A long name may be broken behind its dots and bars.
const parted = (name) => name.split(/(?<=[._/])/).flatMap((part, i) => i ? [make("wbr"), part] : [part]);
function picks(row, t) {
  row.className += (t === state.tower ? " picked" : "") + " pick";
  row.tabIndex = 0;
  row.addEventListener("keydown", (event) => { if (event.key === "Enter") row.click(); });
  row.addEventListener("click", () => {
    state.tower = t;
    for (const other of document.querySelectorAll("tr.picked")) other.classList.remove("picked");
    row.classList.add("picked");
    drawCurves();
  });
}
function spark(values) {
  const known = values.filter((v) => !Number.isNaN(v)), low = Math.min(...known), span = Math.max(...known) - low || 1;
  const points = values.map((v, i) => Number.isNaN(v) ? "" : `${2 + 66 * i / (values.length - 1)},${16 - 14 * (v - low) / span}`);
  return make("svg", {class: "spark", viewBox: "0 0 70 18", "aria-hidden": "true"}, make("polyline", {points: points.join(" ")}));
}
let shown = tensors;
function drawTensors() {
  shown = sorted();
  const pages = Math.max(1, Math.ceil(shown.length / PAGE));
  state.page = Math.min(state.page, pages - 1);
  const begin = state.page * PAGE, body = make("tbody");
  for (const t of shown.slice(begin, begin + PAGE)) {
    const row = make("tr");
    row.append(...COLUMNS.map((column) => cell(column, t)));
    if (checkpoints > 1) row.lastChild.prepend(spark(data.checkpoints.map((_, c) => figures.r2(c, t, state.level))), " ");
    picks(row, t);
    body.append(row);
  }
  $("tensors").replaceChildren(head(COLUMNS, true), body);
  $("found").textContent = `At level ${state.level} (${data.stages[state.level]}), checkpoint ${data.checkpoints[state.checkpoint].label}: ` +
    `${whole(shown.length)} of ${whole(tensors.length)} tensors. Headings sort, and say what a column means when pointed at.`;
  const turn = (by, label) => {
    const button = make("button", {type: "button"}, label);
    button.disabled = state.page + by < 0 || state.page + by >= pages;
    button.addEventListener("click", () => { state.page += by; drawTensors(); });
    return button;
  };
  $("pages").replaceChildren(...pages > 1 ? [turn(-1, "Back"), `${whole(begin + 1)} to ${whole(Math.min(begin + PAGE, shown.length))} of ${whole(shown.length)}`, turn(1, "On")] : []);
  drawMaps();
}
function drawPooled() {
  const c = state.checkpoint, keep = ["n_components", "params", "r2", "null_r2", "lift", "svd_bound_r2", "participation_ratio", "null_participation_ratio", "bits_per_weight"];
  const columns = keep.map((key) => COLUMNS.find((one) => one.key === key)), body = make("tbody");
  for (const t of pooled) {
    for (let l = 0; l < levels; l++) {
      const marks = [l === fixed(c, t) ? "fixed point" : "", l === honest(c, t) ? "fewest bits" : ""].filter(Boolean).join(", ");
      const row = make("tr", l ? {} : {class: "begins"}, make("td", {}, l ? "" : `${title(t)}, ${whole(data.towers.weights[t])} weights`),
        make("td", {class: "left"}, `${l} ${data.stages[l]}`));
      for (const column of columns) {
        // The model has no number of its own to keep a row, and the weights need no bound.
        const none = column.key === "n_components" && !figures[column.key](c, t, l) || column.key === "svd_bound_r2" && !l;
        const value = none ? NaN : figures[column.key](c, t, l), node = make("td", {}, column.show(value));
        if (column.tone && value) node.className = value > 0 ? "above" : "below";
        row.append(node);
      }
      row.append(make("td", {class: "left"}, marks));
      picks(row, t);
      body.append(row);
    }
  }
  const heading = head([{key: "name", label: "scope"}, {key: "stage", label: "level"}, ...columns, {key: "", label: ""}], false);
  $("pooled").replaceChildren(heading, body);
}

// Curves: over steps if there are several checkpoints, else over levels.
const known = data.checkpoints.map((one) => one.step);
const stepped = known.every((step, i) => step !== null && (i === 0 || step > known[i - 1]));
const xs = checkpoints > 1 ? (stepped ? known : known.map((_, i) => i + 1)) : data.stages.map((_, l) => l);
const colour = (l) => `var(--c${l % 8})`;
function chart(caption, series) {
  const W = 380, H = 200, L = 48, R = 10, T = 8, B = 26;
  const all = series.flatMap((one) => one.values).filter(Number.isFinite);
  if (!all.length) return null;
  let low = Math.min(...all), high = Math.max(...all);
  const pad = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  low -= pad; high += pad;
  const x0 = xs[0], x1 = xs[xs.length - 1], X = (x) => L + (W - L - R) * (x1 > x0 ? (x - x0) / (x1 - x0) : 0.5);
  const Y = (y) => T + (H - T - B) * (1 - (y - low) / (high - low));
  const svg = make("svg", {class: "chart", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": caption});
  const places = high - low > 20 ? 0 : high - low > 0.5 ? 2 : high - low > 0.005 ? 4 : 6;
  for (let i = 0; i < 4; i++) {
    const y = low + (high - low) * (i + 0.5) / 4;
    svg.append(make("line", {x1: L, x2: W - R, y1: Y(y), y2: Y(y), class: "grid"}), make("text", {x: L - 5, y: Y(y) + 4, "text-anchor": "end"}, y.toFixed(places)));
  }
  let free = -Infinity;
  xs.forEach((x, i) => {
    const label = whole(x), half = label.length * 3.2, at = Math.min(Math.max(X(x), half), W - half);
    if (at - half > free + 6 && (i === xs.length - 1 || X(x1) - at > 2 * half + 8 || xs.length < 6)) {
      svg.append(make("text", {x: at, y: H - 8, "text-anchor": "middle"}, label));
      free = at + half;
    }
  });
  for (const one of series) {
    const points = one.values.map((v, i) => Number.isFinite(v) ? [X(xs[i]), Y(v)] : null).filter(Boolean);
    svg.append(make("polyline", {points: points.map((p) => p.join(",")).join(" "), style: `stroke:${one.colour}`, class: one.null ? "null" : ""}));
    if (!one.null) svg.append(...points.map((p) => make("circle", {cx: p[0], cy: p[1], r: xs.length > 30 ? 1.2 : 2.4, style: `fill:${one.colour}`})));
  }
  return make("figure", {}, make("figcaption", {}, caption), svg);
}
function drawCurves() {
  const t = state.tower, c = state.checkpoint, several = checkpoints > 1, above = data.stages.map((_, l) => l).slice(1);
  const over = several ? stepped ? " over steps" : " over checkpoints" : " by level";
  function lines(name, from, isNull) {
    if (several) return from.map((l) => ({values: data.checkpoints.map((_, k) => figures[name](k, t, l)), colour: colour(l), null: isNull}));
    const values = data.stages.map((_, l) => from.includes(l) ? figures[name](c, t, l) : NaN);
    return [{values, colour: colour(isNull ? 5 : 0), null: isNull}];
  }
  const all = several ? above : data.stages.map((_, l) => l);
  $("curves").replaceChildren(...[
    chart("R2" + over, [...lines("r2", above), ...lines("null_r2", above, true)]),
    chart("Participation ratio" + over, [...lines("participation_ratio", above), ...lines("null_participation_ratio", above, true)]),
    chart("Description length, bits a weight" + over, [...lines("bits_per_weight", all), ...several ? lines("bits_per_weight", [0]) : []]),
  ].filter(Boolean));
  $("curves-of").textContent = title(t);
  $("curves-heading").textContent = several ? stepped ? "Over steps" : "Over checkpoints" : "Level by level";
  const key = (name, shade, none) => make("span", {}, make("i", {class: none ? "null" : "", style: `border-color:${shade}`}), name);
  $("legend").replaceChildren(...several
    ? [...above.map((l) => key(`${l} ${data.stages[l]}`, colour(l))), key("0: no model (bits)", colour(0)), key("dotted: the null", "var(--quiet)", true)]
    : [key("the weights", colour(0)), key("weights without structure", colour(5), true)]);
}

// Maps: tensors by levels.
const lift = (t, l) => figures.lift(state.checkpoint, t, l);
const surplus = (t, l) => Math.log2(figures.participation_ratio(state.checkpoint, t, l) / figures.null_participation_ratio(state.checkpoint, t, l));
function most(value) {
  const sizes = [];
  for (const t of tensors) for (let l = 1; l < levels; l++) { const v = Math.abs(value(t, l)); if (Number.isFinite(v)) sizes.push(v); }
  sizes.sort((a, b) => a - b);
  return sizes.length ? Math.max(sizes[Math.floor(0.98 * (sizes.length - 1))], 1e-9) : 0;
}
function drawMap(id, value, limit, turned) {
  const canvas = $(id), W = canvas.parentElement.clientWidth, n = Math.max(shown.length, 1), rows = levels - 1;
  const tallest = printing ? PRINTED : 8000, H = n <= 60 ? 16 : Math.max(Math.min(4, tallest / n), tallest / 1e5), named = H >= 11;
  const ratio = window.devicePixelRatio || 1, style = getComputedStyle(document.documentElement), top = 18;
  const colours = [turned ? "--above" : "--below", turned ? "--below" : "--above"].map((name) => style.getPropertyValue(name));
  const left = named ? Math.min(W * 0.5, 260) : 0, wide = (W - left) / Math.max(rows, 1);
  canvas.style.height = top + n * H + "px";
  canvas.width = W * ratio; canvas.height = (top + n * H) * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.font = "11px system-ui, sans-serif"; pen.textBaseline = "middle"; pen.fillStyle = style.getPropertyValue("--quiet");
  for (let l = 1; l < levels; l++) pen.fillText(fit(pen, `${l} ${data.stages[l]}`, wide - 6), left + (l - 1) * wide + 4, top / 2);
  shown.forEach((t, i) => {
    if (named) {
      pen.globalAlpha = 1; pen.fillStyle = style.getPropertyValue("--ink");
      pen.fillText(fit(pen, data.towers.name[t], left - 10, true), 4, top + i * H + H / 2);
    }
    for (let l = 1; l < levels; l++) {
      const v = value(t, l), gap = named ? 1 : 0;
      pen.globalAlpha = Number.isFinite(v) ? Math.min(Math.abs(v) / limit, 1) : 1;
      pen.fillStyle = Number.isFinite(v) ? `rgb(${colours[v > 0 ? 1 : 0]})` : style.getPropertyValue("--unknown");
      pen.fillRect(left + (l - 1) * wide, top + i * H, wide - 1, H - gap);
    }
  });
  canvas.onmousemove = canvas.onclick = (event) => {
    const box = canvas.getBoundingClientRect(), i = Math.floor((event.clientY - box.top - top) / H), l = 1 + Math.floor((event.clientX - box.left - left) / wide);
    if (i < 0 || i >= shown.length || l >= levels) return;
    const t = shown[i], c = state.checkpoint, at = Math.max(l, 1), f = (name, n) => digits(n)(figures[name](c, t, at));
    $("pointed").textContent = `${data.towers.name[t]}, level ${at} (${data.stages[at]}): R2 ${f("r2", 4)}, null ${f("null_r2", 4)}, ` +
      `lift ${f("lift", 4)}; PR ${f("participation_ratio", 2)}, null ${f("null_participation_ratio", 2)}`;
  };
}
function fit(pen, text, width, end) {
  if (pen.measureText(text).width <= width) return text;
  let keep = Math.max(1, Math.floor(text.length * width / pen.measureText(text).width) - 1);
  const cut = () => end ? "…" + text.slice(-keep) : text.slice(0, keep) + "…";
  while (keep > 1 && pen.measureText(cut()).width > width) keep--;
  return cut();
}
let printing = false;
function print(on) {
  printing = on;
  document.documentElement.classList.toggle("printing", on);
  drawMaps();
}
function drawMaps() {
  const limits = [most(lift), most(surplus)];
  drawMap("map-lift", lift, limits[0]);
  drawMap("map-pr", surplus, limits[1], true);
  const ramp = (turned) => make("span", {class: turned ? "ramp turned" : "ramp"});
  $("scale-lift").replaceChildren(`lift ${signed(3)(-limits[0])}`, ramp(), signed(3)(limits[0]));
  $("scale-pr").replaceChildren(...limits[1] ? [`${digits(2)(2 ** -limits[1])} of the null`, ramp(true), `${digits(2)(2 ** limits[1])} times`] : ["no level has one"]);
}

// Controls.
function draw() { drawPooled(); drawCurves(); drawTensors(); }
data.checkpoints.forEach((one, c) => $("checkpoint").append(make("option", {value: c}, one.label)));
data.stages.forEach((stage, l) => $("level").append(make("option", {value: l}, `${l} ${stage}`)));
$("checkpoint").value = state.checkpoint; $("level").value = state.level; $("filter").value = state.filter;
$("of-checkpoint").hidden = checkpoints < 2;
if (checkpoints < 2) $("of-checkpoint").style.display = "none";
$("controls").hidden = false;
$("checkpoint").addEventListener("change", (event) => { state.checkpoint = +event.target.value; draw(); });
$("level").addEventListener("change", (event) => { state.level = +event.target.value; drawTensors(); });
$("filter").addEventListener("input", (event) => { state.filter = event.target.value; state.page = 0; drawTensors(); });
let waiting = 0, width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  clearTimeout(waiting);
  waiting = setTimeout(drawMaps, 120);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMaps);
addEventListener("beforeprint", () => print(true));
addEventListener("afterprint", () => print(false));
draw();
document.documentElement.dataset.ready = Math.round(performance.now());
})();
