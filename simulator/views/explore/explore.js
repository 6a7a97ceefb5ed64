"use strict";

/* The page: controls, the address that keeps their state, the answer in words, and the figures. */

const data = JSON.parse(document.getElementById("data").textContent);
const model = makeModel(data);
const style = data.style;

const SIZES = [
  { field: "samples", key: "samples", flag: "-n", label: "Samples", hint: "of each context", unit: "samples", axis: "samples of each context" },
  { field: "context_tokens", key: "context", flag: "--context", label: "Context", hint: "shared tokens", unit: "context tokens", axis: "shared context [tokens]" },
  { field: "decoded_tokens", key: "decoded", flag: "--decoded", label: "Own tokens", hint: "per sample", unit: "own tokens", axis: "own tokens of each sample" },
  { field: "prompts", key: "prompts", flag: "--prompts", label: "Prompts", hint: "at once", unit: "prompts", axis: "prompts" },
];
const LAYOUTS = {
  copies: "a context copy each", shared: "one stored context", rebuilt: "the context rebuilt each step",
};
const MENUS = [
  { field: "model", key: "model", label: "Model", names: data.models.map(({ name }) => name) },
  { field: "gpu", key: "gpu", label: "GPU", names: data.gpus.map(({ id }) => id), texts: data.gpus.map(({ name }) => name) },
  { field: "kv_heads", key: "kv-heads", label: "KV heads" },
  { field: "kernel", key: "kernel", label: "Kernel", names: data.kernels },
  { field: "execution", key: "execution", label: "Execution", names: data.executions },
  { field: "kv_layout", key: "kv-layout", label: "Standard keeps", names: data.layouts,
    texts: data.layouts.map((layout) => LAYOUTS[layout]) },
];
const start = {
  ...Object.fromEntries(SIZES.map(({ field }) => [field, data.start[field]])),
  model: indexOf(data.models, ({ name }) => name === data.start.model),
  gpu: indexOf(data.gpus, ({ id }) => id === data.start.gpu),
  kv_heads: data.start.kv_heads,
  kernel: data.kernels.indexOf(data.start.kernel),
  execution: data.executions.indexOf(data.start.execution),
  kv_layout: data.layouts.indexOf(data.start.kv_layout),
};
let state = runnable(start);
const controls = {};
const boxes = {};

function indexOf(items, test) {
  return Math.max(0, items.findIndex(test));
}

/* ---- state ---- */

/* The nearest state that the page has a program for: a model may lack KV heads or a kernel. */
function runnable(wanted) {
  const chosen = { ...wanted };
  const { choices, kv_heads: own } = data.models[chosen.model];
  if (!choices.includes(chosen.kv_heads)) chosen.kv_heads = choices.includes(own) ? own : choices.at(-1);
  if (runs(chosen)) return chosen;
  const places = (names, first) => [names.indexOf(first), ...names.keys()].filter((at) => at >= 0);
  const others = [
    ...places(data.kernels, "flash").map((kernel) => ({ ...chosen, kernel })),
    ...places(data.executions, "graph").map((execution) => ({ ...chosen, execution })),
  ];
  return others.find(runs) || chosen;
}

/* Whether the page has a program for a state. */
function runs({ model: at, kv_heads: kvHeads, kernel, execution }) {
  const { choices, programs } = data.models[at];
  return programs[choices.indexOf(kvHeads)][kernel][execution] !== null;
}

/* Read 8192, 8K (8192) or 8k (8000), as the command line does; null for what is no count. */
function parseSize(text) {
  const match = /^(\d+(?:\.\d+)?)([kmKM]?)$/.exec(text.trim().replace(/[_,]/g, ""));
  if (!match) return null;
  const value = Number(match[1]) * { "": 1, k: 1e3, m: 1e6, K: 1024, M: 2 ** 20 }[match[2]];
  return Number.isInteger(value) ? value : null;
}

/* What is wrong with a size, or nothing. */
function sizeProblem(field, value) {
  if (!data.moved.includes(field)) return value === start[field] ? "" : `fixed by the scenario at ${wholeText(start[field])}`;
  const least = field === "samples" || field === "prompts" ? 1 : 0;
  if (value === null) return "write 8192, 8K (8192) or 8k (8000)";
  if (value < least) return `at least ${least}`;
  if (value > data.limits.count) return `at most ${wholeText(data.limits.count)}`;
  const { prompts, samples, context_tokens: context, decoded_tokens: own } = { ...state, [field]: value };
  if (prompts * samples * (context + own + (data.kept.query_tokens || 1)) > data.limits.tokens) {
    return "too many tokens in all";
  }
  return "";
}

/* The address keeps the state, so that a view can be kept and passed on. */
function writeAddress() {
  const words = [
    ...MENUS.map(({ field, key, names }) => [key, names ? names[state[field]] : state[field]]),
    ...SIZES.map(({ field, key }) => [key, state[field]]),
  ];
  const hash = words.map(([key, value]) => `${key}=${encodeURIComponent(value)}`).join("&");
  history.replaceState(null, "", `#${hash}`);
}

/* Take what an address says; what it says that this page cannot do is named, and left. */
function readAddress() {
  const ignored = [];
  const words = new URLSearchParams(location.hash.slice(1));
  const wanted = { ...start };
  for (const [key, text] of words) {
    const menu = MENUS.find((item) => item.key === key);
    const size = SIZES.find((item) => item.key === key);
    if (menu && menu.names && menu.names.includes(text)) wanted[menu.field] = menu.names.indexOf(text);
    else if (menu && !menu.names && Number(text) > 0) wanted[menu.field] = Number(text);
    else if (size && sizeProblem(size.field, parseSize(text)) === "") wanted[size.field] = parseSize(text);
    else ignored.push(`${key}=${text}`);
  }
  if (words.has("model") && !words.has("kv-heads")) wanted.kv_heads = data.models[wanted.model].kv_heads;
  const taken = runnable(wanted);
  if (words.has("kv-heads") && taken.kv_heads !== wanted.kv_heads) ignored.push(`kv-heads=${wanted.kv_heads}`);
  if (words.has("kernel") && taken.kernel !== wanted.kernel) ignored.push(`kernel=${data.kernels[wanted.kernel]}`);
  state = taken;
  return ignored;
}

/* ---- controls ---- */

/* Positions of a slider: every whole number at first, then four to an octave. */
function positions([low, high]) {
  const found = new Set([low, high]);
  for (let octave = 1; octave <= high; octave *= 2) {
    for (const quarter of [4, 5, 6, 7]) {
      const value = Math.round((octave * quarter) / 4);
      if (value >= low && value <= high) found.add(value);
    }
  }
  return [...found].sort((first, second) => first - second);
}

function nearestPosition(values, value) {
  const distance = (other) => Math.abs(Math.log((other + 0.5) / (value + 0.5)));
  return values.reduce((best, other, at) => (distance(other) < distance(values[best]) ? at : best), 0);
}

function buildControls() {
  const menus = MENUS.map((menu) => {
    const select = element("select", { id: menu.key });
    select.addEventListener("change", () => {
      const value = menu.names ? select.selectedIndex : Number(select.value);
      const changed = { ...state, [menu.field]: value };
      if (menu.field === "model") changed.kv_heads = data.models[value].kv_heads;
      change(changed);
    });
    controls[menu.field] = { select };
    return element("div", { class: "control" }, element("label", { for: menu.key }, menu.label), select);
  });
  const sizes = SIZES.map((size) => {
    const values = positions(data.ranges[size.field]);
    const slider = element("input", {
      type: "range", id: size.key, min: 0, max: values.length - 1, step: 1, "aria-describedby": `${size.key}-hint`,
    });
    const box = element("input", {
      type: "text", id: `${size.key}-text`, inputmode: "text", autocomplete: "off", spellcheck: "false",
      "aria-label": `${size.label}, exact`, "aria-describedby": `${size.key}-problem`,
    });
    const problem = element("div", { class: "problem", id: `${size.key}-problem`, role: "alert" });
    slider.addEventListener("input", () => change({ ...state, [size.field]: values[slider.value] }));
    box.addEventListener("input", () => {
      const value = parseSize(box.value);
      const wrong = sizeProblem(size.field, value);
      problem.textContent = wrong;
      box.setAttribute("aria-invalid", String(wrong !== ""));
      if (wrong === "") change({ ...state, [size.field]: value }, size.field);
    });
    box.addEventListener("blur", showControls);
    controls[size.field] = { slider, box, problem, values };
    return element("div", { class: "control" },
      element("div", { class: "row" },
        element("span", {}, element("label", { for: size.key }, size.label), " ",
          element("span", { class: "hint", id: `${size.key}-hint` }, size.hint)),
        box),
      slider, problem);
  });
  const reset = element("button", { type: "button", id: "reset" }, "Back to the scenario");
  reset.addEventListener("click", () => change(runnable(start)));
  const form = document.getElementById("controls");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.append(...sizes, element("div", { class: "menus" }, ...menus), reset);
}

/* Show the state in the controls; the box that is being typed in is left alone. */
function showControls(typing) {
  for (const { field, names, texts } of MENUS) {
    const { select } = controls[field];
    const own = data.models[state.model];
    const options = names
      ? names.map((name, at) => [name, texts ? texts[at] : name])
      : own.choices.map((count) => [count, count === own.kv_heads ? `${count} (the model's)` : String(count)]);
    const signature = options.map(([, text]) => text).join("|");
    if (select.dataset.options !== signature) {
      select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
      select.dataset.options = signature;
    }
    if (field === "kernel" || field === "execution") {
      [...select.options].forEach((option, at) => {
        option.disabled = !runs({ ...state, [field]: at });
      });
    }
    select.value = String(names ? names[state[field]] : state[field]);
    select.disabled = select.options.length < 2;
  }
  for (const { field, unit } of SIZES) {
    const { slider, box, problem, values } = controls[field];
    slider.value = nearestPosition(values, state[field]);
    slider.disabled = !data.moved.includes(field);
    box.readOnly = slider.disabled;
    slider.setAttribute("aria-valuetext", `${sizeText(state[field])} ${unit}`);
    if (field === typing) continue;
    box.value = sizeText(state[field]);
    box.setAttribute("aria-invalid", "false");
    problem.textContent = "";
  }
}

/* ---- the answer ---- */

function lineOf(way) {
  const { lines } = style;
  const names = {
    standard: `standard, ${LAYOUTS[data.layouts[state.kv_layout]]}`,
    shared: lines.shared_storage.name,
    bifurcated: lines.bifurcated.name,
  };
  return { ...lines[way === "shared" ? "shared_storage" : way], name: names[way] };
}

/* The ways to show: storage that is shared anyway is not shown twice. */
function waysShown() {
  return data.layouts[state.kv_layout] === "shared" ? ["standard", "bifurcated"] : ["standard", "shared", "bifurcated"];
}

function showAnswer(result, breakEven) {
  setText("headline", verdict(result));
  const most = waysShown().map((way) => [lineOf(way).name, model.mostThatFits(state, layoutOf(way), "samples")]);
  const base = comparable(result);
  const sure = model.ratioInterval(base, result.bifurcated);
  const over = base === result.standard ? "" : " over one stored context";
  const remarks = [
    `The speed-up${over} lies between ${sure.low.toFixed(2)} and ${sure.high.toFixed(2)}.`,
    `Bifurcated reads ${significant(result.kv_io_ratio)} times fewer KV bytes; that ratio is not the speed-up.`,
    breakEvenText(breakEven),
    `Most samples that fit: ${most.map(([name, count]) => `${count === null ? "none" : wholeText(count)} (${name})`).join(", ")}.`,
    tooLong(),
  ];
  const list = document.getElementById("remarks");
  list.replaceChildren(...remarks.filter(Boolean).map((remark) => element("li", {}, remark)));
  showTable(result);
}

/* What bifurcated is held against: one stored context where copies do not fit and it does. */
function comparable({ standard, shared }) {
  return !standard.memory.fits && shared.memory.fits ? shared : standard;
}

/* The answer in a sentence, as `bifurcate compare` decides it. */
function verdict(result) {
  const { standard, bifurcated } = result;
  const base = comparable(result);
  if (!base.memory.fits && !bifurcated.memory.fits) {
    return `Neither fits: bifurcated is ${short(bifurcated)} short of memory`;
  }
  if (!base.memory.fits) return `Only bifurcated fits: ${timeText(bifurcated.seconds)} a step`;
  if (!bifurcated.memory.fits) return `Only standard fits: ${timeText(base.seconds)} a step`;
  const ratio = base.seconds / bifurcated.seconds;
  const times = `${timeText(bifurcated.seconds)} against ${timeText(base.seconds)} a step`;
  const sure = model.ratioInterval(base, bifurcated).verdict;
  const winner = model.winner(ratio, true, true);
  const lead = sure === "too close to call" ? "Too close to call"
    : winner === "tie" ? "No difference to act on"
    : winner === "bifurcated" ? "Bifurcated wins" : "Standard wins";
  const faster = `${lead === "Bifurcated wins" ? "" : "bifurcated is "}${timesText(ratio)} as fast, ${times}`;
  if (base !== standard) return `Context copies do not fit. Over one stored context: ${lead.toLowerCase()}, ${faster}`;
  return `${lead}: ${faster}`;
}

function short(step) {
  return gibText(step.memory.total_bytes - step.memory.capacity_bytes);
}

function breakEvenText(breakEven) {
  const { samples, context_tokens: context } = breakEven;
  if (!Object.values(breakEven).some((value) => value !== null)) return "No number of samples at this context, and no context at these samples, makes it faster.";
  const parts = [
    samples === null ? "at no number of samples at this context" : `from ${wholeText(samples)} sample${samples === 1 ? "" : "s"} at this context`,
    context === undefined ? "" : context === null ? "at no context at these samples" : `from ${sizeText(context)} context tokens at ${wholeText(state.samples)} samples`,
  ];
  return `Sharing the reads is faster ${parts.filter(Boolean).join(", and ")}.`;
}

/* 11.9 to 13.3 ms. */
function betweenText({ low, high }) {
  const [first, last] = [timeText(low), timeText(high)];
  const [number, unit] = first.split(" ");
  return `${last.endsWith(` ${unit}`) ? number : first} to ${last}`;
}

function tooLong() {
  const { most_tokens: most, name } = data.models[state.model];
  const tokens = state.context_tokens + state.decoded_tokens;
  return most && tokens > most ? `Warning: ${wholeText(tokens)} tokens exceed the ${wholeText(most)} that ${name} was made for.` : "";
}

function showTable(result) {
  const ways = waysShown();
  const price = data.gpus[state.gpu].usd_per_hour;
  const gpus = data.kept.tensor_parallel || 1;
  const rows = [
    ["Step", (step) => timeText(step.seconds)],
    ["Between", (step) => betweenText(step.interval)],
    ["Speed-up", (step) => `${(result.standard.seconds / step.seconds).toFixed(2)}x`],
    ["Bound by", (step) => step.bound],
    ["Tokens/s", (step) => wholeText(step.tokens_per_s)],
    ["KV read", (step) => siText(step.totals.kv_bytes_read || 0, "B")],
    ["Memory", (step) => gibText(step.memory.total_bytes)],
    [`Fits in ${gibText(result.standard.memory.capacity_bytes)}`, (step) => (step.memory.fits ? "yes" : `no, ${short(step)} short`)],
    ...(price ? [["USD per million tokens", (step) => significant((price * gpus * 1e6) / (step.tokens_per_s * 3600))]] : []),
  ];
  const head = element("tr", {}, element("th", { scope: "col" }, ""), ...ways.map((way) =>
    element("th", { scope: "col" }, element("svg", { class: "swatch", viewBox: "0 0 26 12", "aria-hidden": "true" }, lineSwatch(lineOf(way))), lineOf(way).name)));
  const body = rows.map(([name, text]) => element("tr", {}, element("th", { scope: "row" }, name), ...ways.map((way) =>
    element("td", { "data-way": way, class: name.startsWith("Fits") && !result[way].memory.fits ? "unfit" : null }, text(result[way])))));
  document.getElementById("ways").replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
}

function setText(id, text) {
  const place = document.getElementById(id);
  if (place.textContent !== text) place.textContent = text;
}

/* ---- figures ---- */

function buildFigures() {
  const section = document.getElementById("charts");
  const along = data.moved.includes("context_tokens") ? "context_tokens" : "decoded_tokens";
  const map = along === "context_tokens" ? [["speedup", "wide"]] : [];
  for (const [id, wide] of [["samples"], [along], ["operations"], ["memory"], ...map, ["roofs", "wide"]]) {
    const title = element("strong");
    const subtitle = element("span");
    const body = element("div");
    const said = element("div", { class: "readout" });
    section.append(element("figure", { id: `figure-${id}`, class: wide }, element("figcaption", {}, title, subtitle), body, said));
    boxes[id] = { title, subtitle, body, said };
  }
  section.append(element("details", { class: "wide", id: "details" }, element("summary", {}, "Every operation"), element("div", { class: "scroll" }, element("table", { id: "operations" }))));
  document.getElementById("details").addEventListener("toggle", showOperations);
}

/* A place to draw: its width, its texts, and how to put the drawing in. */
function boxFor(id, title, subtitle) {
  const box = boxes[id];
  if (box.title.textContent !== title) box.title.textContent = title;
  if (box.subtitle.textContent !== subtitle) box.subtitle.textContent = subtitle;
  box.said.textContent = "";
  return {
    style, label: `${title}. ${subtitle}`, width: Math.max(260, box.body.clientWidth),
    draw: (svg, key, speaks) => {
      box.body.replaceChildren(svg, key);
      box.said.hidden = !speaks;
    },
    say: (text) => { box.said.textContent = text; },
  };
}

function layoutOf(way) {
  return way === "standard" ? data.layouts[state.kv_layout] : way;
}

function drawCurve(field, result, breakEven) {
  const size = SIZES.find((item) => item.field === field);
  const [low, high] = data.ranges[field];
  const xs = positions([Math.max(1, low), Math.max(high, state[field])]);
  const series = waysShown().map((way) => ({
    line: lineOf(way),
    points: xs.map((x) => {
      const { seconds, bound, fits } = model.brief({ ...state, [field]: x }, layoutOf(way));
      return { x, y: seconds, bound, fits, mark: Number.isInteger(Math.log2(x)) };
    }),
  }));
  const others = field === "samples" ? `at ${sizeText(state.context_tokens)} context tokens` : `at ${wholeText(state.samples)} samples`;
  const box = boxFor(field, findingAlong(size, breakEven), `Decode step against ${size.label.toLowerCase()}, ${others}`);
  lineChart(box, {
    series, now: Math.max(1, state[field]),
    x: { title: size.axis, unit: size.unit },
    pick: (value) => change({ ...state, [field]: value }),
  });
}

function findingAlong({ field, unit }, breakEven) {
  const any = field === "samples" ? "number of samples" : "context";
  const from = breakEven[field];
  if (from === undefined) return "The gain fades as samples grow their own tokens";
  if (from === null) return `Bifurcated is not faster at any ${any}`;
  if (from <= 1) return `Bifurcated is faster at any ${any}`;
  return `Bifurcated is faster from ${field === "samples" ? wholeText(from) : sizeText(from)} ${unit} on`;
}

function drawSpeedup() {
  const power = (field) => {
    const [low, high] = data.ranges[field];
    return powers([Math.max(low, field === "samples" ? 1 : 128), Math.max(high, 1024)], 14);
  };
  const [columns, rows] = [power("samples"), power("context_tokens")];
  const cells = rows.map((context) => columns.map((samples) => {
    const at = { ...state, samples, context_tokens: context };
    const [standard, bifurcated] = ["standard", "bifurcated"].map((way) => model.brief(at, layoutOf(way)));
    return {
      speedup: standard.seconds / bifurcated.seconds,
      standardFits: standard.fits,
      bifurcatedFits: bifurcated.fits,
    };
  }));
  const fitting = cells.flat().filter((cell) => cell.bifurcatedFits).map((cell) => cell.speedup);
  const best = Math.max(...fitting);
  const finding = fitting.length === 0 ? "Nothing on this map fits in memory"
    : best < 1.02 ? "Bifurcated gains nothing anywhere on this map"
    : `Where it fits, bifurcated is up to ${timesText(best)} as fast`;
  const box = boxFor("speedup", finding, `Speed-up at ${wholeText(state.decoded_tokens)} own tokens: blue where bifurcated is faster, red where standard is, grey where bifurcated does not fit`);
  heatMap(box, {
    columns, rows, cells, now: { x: state.samples, y: state.context_tokens },
    x: { title: "samples of each context" }, y: { title: "shared context [tokens]" },
    pick: (samples, context) => change({ ...state, samples, context_tokens: context }),
  });
}

function drawOperations(result) {
  const parts = Object.entries(data.parts);
  const rows = waysShown().map((way) => {
    const sums = parts.map(() => 0);
    for (const { part, repeat, seconds } of result[way].operations) sums[part] += repeat * seconds;
    sums[sums.length - 1] += Math.max(0, result[way].host_s - result[way].device_s);
    return { line: lineOf(way), parts: parts.map(([name, colour], at) => ({ name, colour, value: sums[at] })) };
  });
  const share = (way) => {
    const spent = result[way].operations.filter(({ kind }) => ["attention", "combine"].includes(kind)).reduce((sum, { repeat, seconds }) => sum + repeat * seconds, 0);
    return `${Math.round((100 * spent) / result[way].seconds)}\u00a0%`;
  };
  const box = boxFor("operations", `Attention takes ${share("standard")} of a standard step and ${share("bifurcated")} of a bifurcated one`, "Time of a step by what it is spent on");
  barChart(box, { rows, unit: { text: timeText } });
  showOperations();
}

function drawRoofs(result) {
  const gpu = data.gpus[state.gpu];
  const dtype = result.bifurcated.operations.find(({ kind }) => kind === "attention").dtype;
  const rates = gpu.flops_per_s[dtype] || Object.values(gpu.flops_per_s)[0];
  const roofs = [
    { name: "roofs reached", bandwidth: gpu.bandwidth_bytes_per_s.attention, flops: rates.attention, colour: style.ink, dash: "solid" },
    { name: "published", bandwidth: gpu.bandwidth_bytes_per_s.peak, flops: rates.peak, colour: style.grey, dash: "dot" },
  ];
  const points = [];
  const intensity = {};
  for (const way of ["standard", "bifurcated"]) {
    const { operations } = result[way];
    const line = lineOf(way);
    const attention = operations.filter((operation) => ["attention", "combine"].includes(operation.kind) || operation.name.startsWith("attention_"));
    const sum = (field) => attention.reduce((total, operation) => total + operation.repeat * operation[field], 0);
    const [flops, bytes, seconds] = ["flops", "bytes", "seconds"].map(sum);
    const longest = attention.reduce((best, operation) => operation.repeat * operation.seconds > best.repeat * best.seconds ? operation : best);
    intensity[way] = flops / bytes;
    if (flops > 0) points.push({ x: flops / bytes, y: flops / seconds, bound: longest.bound, large: true, colour: line.colour, name: `attention, ${way}`,
      text: `attention, ${way}: ${significant(flops / bytes)} FLOP per byte, ${siText(flops / seconds, "FLOP/s")}, mostly bound by ${longest.bound}` });
    for (const operation of operations) {
      const isAttention = attention.includes(operation);
      if (operation.flops <= 0 || (!isAttention && way === "standard")) continue;
      points.push({ x: operation.flops / operation.bytes, y: operation.flops / operation.seconds, bound: operation.bound, large: false,
        colour: isAttention ? line.colour : style.categories[0], name: isAttention ? `its kernels, ${way}` : "matrix products",
        text: `${operation.name}${isAttention ? `, ${way}` : ""}: ${significant(operation.flops / operation.bytes)} FLOP per byte, ${siText(operation.flops / operation.seconds, "FLOP/s")}, bound by ${operation.bound}` });
    }
  }
  const box = boxFor("roofs",
    `Standard attention does ${significant(intensity.standard, 2)} FLOP per byte, bifurcated ${significant(intensity.bifurcated, 2)}; the roofs meet at ${wholeText(roofs[0].flops / roofs[0].bandwidth)}`,
    `${gpu.name}: operations under its ${dtype} roofs`);
  roofChart(box, { roofs, points });
}

function drawMemory(result) {
  const [green, purple, sky] = style.categories; // as in the other figures
  const rows = waysShown().map((way) => {
    const { memory } = result[way];
    return {
      line: lineOf(way), remark: memory.fits ? "" : ", does not fit",
      parts: [
        { name: "weights", value: memory.weights_bytes, colour: green },
        { name: "KV cache", value: memory.kv_bytes, colour: purple },
        { name: "workspace", value: memory.workspace_bytes, colour: sky },
      ],
    };
  });
  const { standard, bifurcated } = result;
  const gpu = data.gpus[state.gpu];
  const capacity = bifurcated.memory.capacity_bytes;
  const finding = standard.memory.fits && bifurcated.memory.fits ? "Both fit in memory"
    : bifurcated.memory.fits ? `Standard is ${short(standard)} short of memory, bifurcated fits`
    : standard.memory.fits ? `Bifurcated is ${short(bifurcated)} short of memory, standard fits`
    : "Neither fits in memory";
  const box = boxFor("memory", finding, `Memory of one ${gpu.name}; ${Math.round(data.memory_utilization * 100)} % of it may be used`);
  barChart(box, { rows, unit: { text: gibText }, limit: { value: capacity, text: `${gibText(capacity)} may be used` } });
}

let latest = null;

function showOperations() {
  const table = document.getElementById("operations");
  if (!latest || !document.getElementById("details").open) return;
  const names = new Map();
  for (const way of ["standard", "bifurcated"]) {
    for (const operation of latest[way].operations) {
      if (operation.seconds <= 0) continue;
      const row = names.get(operation.name) || {};
      const before = row[way] ? row[way].total : 0;
      row[way] = { ...operation, total: before + operation.repeat * operation.seconds };
      names.set(operation.name, row);
    }
  }
  const cells = (one) => (one ? [timeText(one.total), siText(one.flops * one.repeat, "FLOP"), siText(one.bytes * one.repeat, "B"), one.bound] : ["–", "", "", ""]);
  const numbered = (cell) => element("td", {}, cell);
  table.replaceChildren(
    element("thead", {}, element("tr", {}, ...["operation", "standard", "FLOP", "bytes", "bound by", "bifurcated", "FLOP", "bytes", "bound by"].map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, ...[...names].map(([name, row]) => element("tr", {}, element("th", { scope: "row" }, name), ...[...cells(row.standard), ...cells(row.bifurcated)].map(numbered)))),
  );
}

/* ---- the footer ---- */

function command() {
  const own = data.models[state.model];
  const quoted = (text) => (/^[\w./,=+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
  const words = ["bifurcate compare", "-m", quoted(own.asked), "-g", quoted(data.gpus[state.gpu].asked)];
  if (state.kv_heads !== own.kv_heads) words.push("--kv-heads", state.kv_heads);
  for (const { field, flag } of SIZES) {
    const unsaid = field === "prompts" && state.prompts === 1;
    if (!unsaid && data.moved.includes(field)) words.push(flag, state[field]);
  }
  words.push("--kernel", data.kernels[state.kernel], "--execution", data.executions[state.execution], "--kv-layout", data.layouts[state.kv_layout]);
  const flags = { query_tokens: "--query-tokens", weight_dtype: "--dtype", kv_dtype: "--kv-dtype", tensor_parallel: "--tp", accepted_tokens: "--accepted-tokens", tree: "--tree" };
  for (const [field, value] of Object.entries(data.kept)) words.push(flags[field], quoted(String(value)));
  if (data.constants !== "auto") words.push("--constants", data.constants);
  if (data.memory_utilization !== 0.9) words.push("--gpu-memory-utilization", data.memory_utilization);
  return words.join(" ");
}

function showFooter(ignored) {
  const gpu = data.gpus[state.gpu];
  const own = data.models[state.model];
  const kept = Object.entries(data.kept).map(([field, value]) => `${field} = ${value}`).join(", ");
  const paragraph = (...children) => element("p", {}, ...children);
  document.getElementById("footer").replaceChildren(
    ...(ignored.length ? [element("p", { class: "warning" }, `This page has no ${ignored.join(", ")}: left out.`)] : []),
    paragraph("The same from the command line: ", element("code", { class: "command" }, command())),
    paragraph(`${own.name}: ${own.phrases[own.choices.indexOf(state.kv_heads)]}, ${own.weight_dtype} weights. ${gpu.name}: profile ${gpu.hash}. ${gpu.note}`),
    paragraph(`Scenario ${data.scenario.id}.${kept ? ` Kept as it has them: ${kept}.` : ""} Tokens per second count all samples. The address of this page holds the view.`),
    paragraph(`Computed here, offline, by the simulator's own equations, written down by version ${data.version} when the page was made: the same as bifurcate compare, to rounding.`),
  );
}

/* ---- together ---- */

let waiting = 0;

function change(wanted, typing) {
  state = runnable(wanted);
  showControls(typing);
  writeAddress();
  update([]);
}

/* The answer at once, the figures with the next picture of the screen. */
function update(ignored) {
  latest = model.compare(state);
  const searched = ["samples", "context_tokens"].filter((field) => data.moved.includes(field));
  const breakEven = Object.fromEntries(searched.map((field) => [field, model.breakEven(state, field)]));
  showAnswer(latest, breakEven);
  showFooter(ignored);
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(() => drawAll(breakEven));
}

function drawAll(breakEven) {
  for (const { field } of SIZES) {
    if (field in boxes) drawCurve(field, latest, breakEven);
  }
  if ("speedup" in boxes) drawSpeedup();
  drawOperations(latest);
  drawRoofs(latest);
  drawMemory(latest);
}

function begin() {
  document.body.style.fontFamily = style.font;
  setText("title", data.scenario.title);
  setText("question", data.scenario.question);
  buildControls();
  buildFigures();
  const ignored = readAddress();
  showControls();
  update(ignored);
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) update([]);
    width = window.innerWidth;
  });
  window.addEventListener("hashchange", () => {
    const left = readAddress();
    showControls();
    update(left);
  });
}

begin();
