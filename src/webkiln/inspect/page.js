"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");
const tip = document.getElementById("tip");
const ROW = 30, LANE = 14; // pixels; a row is as high as the style's td
const KINDS = ["contraction", "window", "reduction", "elementwise", "gather"];

/** An element with attributes and children; strings become text, never markup. */
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "circle", "rect", "line", "text", "g"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** 1234567 → "1.23 M"; three digits that matter. */
function short(value, units, step) {
  let unit = 0;
  while (value >= step && unit < units.length - 1) { value /= step; unit++; }
  const digits = unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[unit]}`.trim();
}
const count = (value) => short(value, ["", "K", "M", "G", "T"], 1000);
const bytes = (value) => short(value, ["B", "KiB", "MiB", "GiB"], 1024);
const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : "–");

function kindOf(kind) {
  const plain = kind.replace("-", "").toLowerCase();
  return KINDS.find((name) => plain.startsWith(name)) ?? "other";
}
const colour = (kind) => `var(--${kindOf(kind)})`;

/** An expression of the plan at `dims`: a number, a name, or [op, a, b]. */
function evaluate(expression, dims) {
  if (typeof expression === "number") return expression;
  if (typeof expression === "string") return dims[expression];
  const [op, a, b] = [expression[0], evaluate(expression[1], dims), evaluate(expression[2], dims)];
  const quotient = Math.floor(a / b);
  return { "+": a + b, "-": a - b, "*": a * b, "//": quotient, "%": a - b * quotient,
    min: Math.min(a, b), max: Math.max(a, b), ceildiv: Math.ceil(a / b) }[op];
}

function card(value, label) {
  return make("div", { class: "card" }, make("b", {}, value), make("span", {}, label));
}

function ports(program) {
  const list = make("dl", { class: "ports mono" });
  for (const [title, values] of [["in", program.inputs], ["out", program.outputs]]) {
    for (const value of values) list.append(make("dt", {}, title), make("dd", {}, value));
  }
  return list;
}

function showTip(event, lines) {
  tip.replaceChildren(...lines.flatMap((line, i) => (i ? [make("br"), line] : [make("b", {}, line)])));
  tip.hidden = false;
  const x = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
  const y = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8);
  tip.style.left = `${Math.max(8, x)}px`;
  tip.style.top = `${Math.max(8, y)}px`;
}
const hideTip = () => { tip.hidden = true; };

/** The part of the graph that one row shows: lanes that pass, edges that end, the node. */
function railCell(rail, row, kind) {
  const width = rail.lanes * LANE + 6;
  const svg = make("svg", { width, height: ROW, viewBox: `0 0 ${width} ${ROW}`, "aria-hidden": "true" });
  const x = (lane) => lane * LANE + 8;
  const stroke = { fill: "none", stroke: "var(--soft)", "stroke-width": 1.5, opacity: 0.75 };
  const drawn = new Set();
  const draw = (path) => { if (!drawn.has(path)) { drawn.add(path); svg.append(make("path", { ...stroke, d: path })); } };
  for (const [source, target, lane] of rail.edges) {
    if (row < source || row > target) continue;
    const [from, to, here] = [x(rail.columns[source]), x(rail.columns[target]), x(lane)];
    const middle = ROW / 2;
    if (row === source) draw(`M${from},${middle} C${from},${ROW - 4} ${here},${middle + 4} ${here},${ROW}`);
    else if (row === target) draw(`M${here},0 C${here},${middle - 4} ${to},4 ${to},${middle}`);
    else draw(`M${here},0 V${ROW}`);
  }
  const node = { cx: x(rail.columns[row]), cy: ROW / 2, r: 4.5, fill: colour(kind) };
  svg.append(make("circle", { ...node, stroke: "var(--card)", "stroke-width": 1.5 }));
  return make("td", { class: "rail" }, svg);
}

function bar(value, most) {
  const fill = make("i");
  fill.style.width = `${most ? (100 * value) / most : 0}%`;
  return make("span", { class: "bar" }, fill);
}

function heads(table, names) {
  const row = make("tr");
  for (const [name, style] of names) row.append(make("th", style ? { class: style, scope: "col" } : { scope: "col" }, name));
  table.append(make("thead", {}, row));
}

/** The steps: graph, fused nodes, cost. Rows highlight their buffers in the memory figure and back. */
function stepTable(program, near) {
  const table = make("table");
  heads(table, [["", "rail"], ["step"], ["computes"], ["kind"], ["FLOPs", "number"], ["bytes", "number"], ["FLOPs/byte", "number"], ["share", "number"]]);
  const body = make("tbody");
  const flops = program.steps.reduce((sum, step) => sum + step.flops, 0);
  const [mostFlops, mostBytes] = ["flops", "bytes"].map((key) => Math.max(...program.steps.map((step) => step[key])));
  for (const step of program.steps) {
    // The first node by its name, those fused into it by their operator: rows stay one line high.
    const chips = step.nodes.map((name, i) => make("span", { class: "chip" }, i ? name.split(" ")[0] : name));
    const row = make("tr", { tabindex: 0, "data-step": step.index },
      railCell(program.rail, step.index, step.kind),
      make("td", { class: "soft" }, String(step.index)),
      make("td", { class: "nodes", title: step.nodes.join(" + ") }, ...chips),
      make("td", {}, step.kind),
      make("td", { class: "number" }, count(step.flops), bar(step.flops, mostFlops)),
      make("td", { class: "number" }, bytes(step.bytes), bar(step.bytes, mostBytes)),
      make("td", { class: "number" }, step.bytes ? (step.flops / step.bytes).toFixed(1) : "–"),
      make("td", { class: "number" }, percent(step.flops, flops)));
    for (const event of ["mouseenter", "focus"]) row.addEventListener(event, () => near(step.index));
    for (const event of ["mouseleave", "blur"]) row.addEventListener(event, () => near(null));
    body.append(row);
  }
  table.append(body);
  return make("div", { class: "scroll" }, table);
}

/** Memory over time: a rectangle a buffer, from its first to its last step, at its address. */
function memoryFigure(program) {
  const [width, height, left, bottom] = [1100, 360, 76, 26];
  const svg = make("svg", { viewBox: `0 0 ${width} ${height + bottom}`, role: "img",
    "aria-label": `${program.buffers.length} buffers in ${program.steps.length} steps, at most ${bytes(program.peak)} in use at once` });
  const low = Math.min(...program.buffers.map((b) => b.offset));
  const high = Math.max(...program.buffers.map((b) => b.offset + b.bytes));
  const x = (step) => left + ((width - left) * step) / Math.max(1, program.steps.length);
  const y = (address) => height - ((height - 10) * (address - low)) / Math.max(1, high - low);
  for (let tick = 0; tick <= 4; tick++) {
    const address = low + ((high - low) * tick) / 4;
    svg.append(make("line", { x1: left, x2: width, y1: y(address), y2: y(address), stroke: "var(--line)" }),
      make("text", { x: left - 8, y: y(address) + 4, "text-anchor": "end" }, bytes(address - low)));
  }
  const every = Math.max(1, Math.ceil(program.steps.length / 12));
  for (let step = 0; step < program.steps.length; step += every) {
    svg.append(make("text", { x: x(step), y: height + 18 }, step === 0 ? "step 0" : String(step)));
  }
  const guide = make("rect", { y: 0, height, fill: "var(--ink)", opacity: 0.08, width: 0 });
  const shapes = program.buffers.map((buffer) => {
    const maker = program.steps.find((step) => step.writes.includes(buffer.index));
    const shape = make("rect", { class: "buffer", x: x(buffer.first), y: y(buffer.offset + buffer.bytes),
      width: Math.max(1, x(buffer.last + 1) - x(buffer.first)),
      height: Math.max(0.5, y(buffer.offset) - y(buffer.offset + buffer.bytes)),
      fill: colour(maker ? maker.kind : "other"), "fill-opacity": 0.82 });
    const lines = [buffer.name, `${buffer.dtype}, ${buffer.role}, ${bytes(buffer.bytes)}`,
      `steps ${buffer.first} to ${buffer.last}, at +${bytes(buffer.offset - low)}`];
    shape.addEventListener("mousemove", (event) => showTip(event, lines));
    shape.addEventListener("mouseleave", hideTip);
    svg.append(shape);
    return shape;
  });
  svg.append(guide, livePath(program, x, (used) => y(low + used)));
  const near = (index) => {
    guide.setAttribute("width", index === null ? 0 : x(index + 1) - x(index));
    if (index !== null) guide.setAttribute("x", x(index));
    const step = index === null ? null : program.steps[index];
    shapes.forEach((shape, i) => {
      const used = step && [...step.reads, ...step.writes].includes(program.buffers[i].index);
      shape.classList.toggle("near", Boolean(used));
    });
  };
  return { figure: make("div", { class: "figure" }, svg), near };
}

/** The sum of live bytes a step: where it nears the top, the plan has no room left to gain. */
function livePath(program, x, y) {
  const points = program.live.map((used, step) => `${x(step)},${y(used)} ${x(step + 1)},${y(used)}`);
  return make("path", { d: `M${points.join(" L")}`, fill: "none", stroke: "var(--ink)", "stroke-width": 1.5,
    "stroke-dasharray": "3 3", "pointer-events": "none" });
}

function legend(kinds) {
  const list = make("p", { class: "legend" });
  for (const kind of kinds) {
    const mark = make("i");
    mark.style.background = `var(--${kind})`;
    list.append(make("span", {}, mark, kind));
  }
  return list;
}

function programSection(program, only) {
  const section = make("section");
  const kinds = [...new Set(program.steps.map((step) => kindOf(step.kind)))];
  const memory = program.buffers.length && program.steps.length ? memoryFigure(program) : null;
  section.append(make("h2", {}, only ? "What runs" : `What runs: ${program.name}`),
    make("p", {}, "One row is one kernel call, in order. The line at the left is the graph; the names in a row were fused into one kernel."),
    legend(kinds), stepTable(program, memory ? memory.near : () => {}));
  if (memory) {
    section.append(make("h2", {}, "Memory over time"),
      make("p", {}, "Each rectangle is a buffer: how long it lives, and where it lies. Space is used again as soon as it is free. The dashed line is what is in use at each step."),
      memory.figure);
  }
  return section;
}

function header(over, name, subtitle) {
  return make("header", {}, make("p", { class: "over" }, over), make("h1", {}, name), make("p", {}, subtitle));
}

function dimSliders(redraw) {
  return data.dims.map((dim) => {
    const value = make("output", { class: "mono" }, String(data.at[dim.name]));
    const input = make("input", { type: "range", min: dim.min, max: dim.max, value: data.at[dim.name] });
    input.addEventListener("input", () => {
      data.at[dim.name] = Number(input.value);
      value.textContent = input.value;
      redraw();
    });
    return make("label", { class: "dim" }, make("span", { class: "mono" }, dim.name), input, value);
  });
}

function needs() {
  if (!data.webgpu) return null;
  const lines = Object.entries(data.webgpu.limits).map(([name, value]) => make("li", {}, `${name}: ${value.toLocaleString("en")}`));
  const { features, uses } = data.webgpu;
  return make("details", {}, make("summary", {}, "What WebGPU must offer"),
    make("ul", { class: "mono" }, make("li", {}, `features: ${features.join(", ") || "none"}`),
      ...(uses.length ? [make("li", {}, `can use: ${uses.join(", ")}`)] : []), ...lines));
}

function bundleView() {
  const body = make("div");
  const draw = () => {
    for (const step of data.programs.flatMap((program) => program.steps)) {
      step.flops = evaluate(step.cost.flops, data.at);
      step.bytes = evaluate(step.cost.bytes, data.at);
    }
    const steps = data.programs.flatMap((program) => program.steps);
    const sum = (key) => steps.reduce((total, step) => total + step[key], 0);
    const first = Object.values(data.files).reduce((total, file) => total + file.gzip, 0);
    body.replaceChildren(
      make("div", { class: "cards" }, card(count(sum("flops")), "FLOPs a run"), card(bytes(sum("bytes")), "read and written"),
        card(String(steps.length), `steps, ${data.kernels} kernels`), card(bytes(data.weights), "weights"),
        card(bytes(Math.max(...data.programs.map((program) => program.peak))), `in use at most, of ${bytes(data.arena)}`),
        card(bytes(first), "before the weights, gzipped")),
      ...data.programs.map((program) => programSection(program, data.programs.length === 1)));
  };
  const sliders = dimSliders(draw);
  page.replaceChildren(header("webkiln inspect", data.name, `${data.task} · ${data.generator}`),
    ...data.programs.map(ports), ...sliders, body);
  const limits = needs();
  if (limits) page.append(limits);
  draw();
}

function operatorTable() {
  const table = make("table");
  heads(table, [["operator"], ["domain"], ["count", "number"], ["supported"]]);
  const body = make("tbody");
  for (const operator of data.operators) {
    const answer = { yes: "yes", rewritten: "yes, rewritten by graph passes", no: "no" }[operator.support];
    body.append(make("tr", {}, make("td", { class: "mono" }, operator.name), make("td", { class: "soft" }, operator.domain || "ai.onnx"),
      make("td", { class: "number" }, String(operator.count)), make("td", operator.support === "no" ? { class: "no" } : {}, answer)));
  }
  table.append(body);
  return make("div", { class: "scroll" }, table);
}

function nodeTable() {
  const table = make("table");
  heads(table, [["", "rail"], ["operator"], ["yields"]]);
  const body = make("tbody");
  data.nodes.forEach((node, row) => {
    body.append(make("tr", {}, railCell(data.rail, row, "other"),
      make("td", { title: node.name }, make("span", { class: "chip" }, node.operator)),
      make("td", { class: "nodes mono", title: node.outputs.join("\n") }, node.outputs.join(", "))));
  });
  table.append(body);
  return make("div", { class: "scroll" }, table);
}

function modelView() {
  page.replaceChildren(header("webkiln inspect", data.name, `ONNX opset ${data.opset}${data.task ? ` · ${data.task}` : ""}`), ports(data),
    make("div", { class: "cards" }, card(String(data.nodes.length), "nodes"), card(String(data.operators.length), "operators"),
      card(count(data.parameters), "parameters"), card(bytes(data.weights), "weights")));
  if (data.unsupported.length) {
    page.append(make("p", { class: "notice" }, `Not supported yet: ${data.unsupported.join(", ")}.`));
  }
  page.append(make("h2", {}, "Operators"), make("p", {}, "What the model is made of, most used first."), operatorTable(),
    make("h2", {}, "Graph"), make("p", {}, "The nodes in order, with the type and shape of what they yield."), nodeTable());
}

if (data.view === "bundle") bundleView();
else modelView();
