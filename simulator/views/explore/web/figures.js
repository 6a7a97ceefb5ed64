/* The figures: what each shows, and its title, which says the finding. */

function buildFigures() {
  const section = byId("charts");
  const moves = (field) => data.moved.includes(field);
  const half = ["samples", moves("context_tokens") ? "context_tokens" : "decoded_tokens"];
  half.push("operations", "memory");
  const wide = [moves("context_tokens") && "speedup", moves("prompts") && "users", "roofs"];
  for (const id of [...half, ...wide.filter(Boolean)]) {
    const [title, subtitle, body] = ["h2", "span", "div"].map((name) => element(name));
    const said = element("div", { class: "readout" });
    const caption = element("figcaption", {}, title, subtitle);
    const look = { id: `figure-${id}`, class: wide.includes(id) ? "wide" : null };
    section.append(element("figure", look, caption, body, said));
    boxes[id] = { title, subtitle, body, said };
  }
  const summary = element("summary", {}, "Every operation");
  const table = element("div", { class: "scroll" }, element("table", { id: "operations" }));
  const details = element("details", { class: "wide", id: "details" }, summary, table);
  details.addEventListener("toggle", showOperations);
  section.append(details);
}

/* Ask for all widths at once, and seldom: after a change, asking lays the page out anew. */
function measureFigures() {
  for (const box of Object.values(boxes)) box.width = Math.max(260, box.body.clientWidth);
}

/* A place to draw: its width, its texts, and how to put the drawing in. */
function boxFor(id, title, subtitle) {
  const box = boxes[id];
  setText(box.title, title);
  setText(box.subtitle, subtitle);
  setText(box.said, "");
  return {
    style,
    label: `${title}. ${subtitle}`,
    width: box.width,
    draw: (svg, keys, speaks = true) => {
      svg.addEventListener("pointerleave", () => setText(box.said, ""));
      box.body.replaceChildren(svg, legend(keys));
      box.said.hidden = !speaks;
    },
    say: (text) => setText(box.said, text),
  };
}

function layoutOf(way) {
  return way === "standard" ? data.layouts[state.kv_layout] : way;
}

function drawCurve(field, result, breakEven) {
  const size = SIZES.find((item) => item.field === field);
  const [low, high] = data.ranges[field];
  const xs = positions([Math.max(1, low), Math.max(high, state[field])]);
  const series = seriesAlong(field, xs, (seconds, x) => ({ x, y: seconds * 1e3, text: timeText(seconds) }));
  const context = `${sizeText(state.context_tokens)} context tokens`;
  const others = field === "samples" ? context : plural(state.samples, "sample");
  const about = `Decode step against ${size.label.toLowerCase()}, at ${others}`;
  const box = boxFor(field, findingAlong(size, breakEven), about);
  lineChart(box, {
    series,
    now: Math.max(1, state[field]),
    target: state.target_step_ms,
    x: { title: size.axis, text: sizeText },
    y: { title: "decode step [ms]" },
    unit: size.unit,
    pick: (value) => change({ ...state, [field]: value }),
  });
}

/* The steps of each way along a size; what of them is drawn, `of` says. */
function seriesAlong(field, values, of) {
  return WAYS.map((way) => ({
    line: lineOf(way),
    points: values.map((value) => {
      const { seconds, bound, fits } = engine.brief({ ...state, [field]: value }, layoutOf(way));
      const mark = Number.isInteger(Math.log2(value));
      return { value, bound, fits, mark, ...of(seconds, value) };
    }),
  }));
}

/* What each user sees against what a GPU gives, as the batch holds more prompts. */
function drawUsers(result) {
  const [, high] = data.ranges.prompts;
  const gpus = data.choices.tensor_parallel[state.tensor_parallel];
  const all = positions([1, Math.max(high, state.prompts)]);
  const series = seriesAlong("prompts", all, (seconds, prompts) => {
    const tokens = engine.tokensAt({ ...state, prompts }, seconds);
    const [x, y] = [tokens / (prompts * state.samples), tokens / gpus];
    return { x, y, text: `${wholeText(y)} tokens/s per GPU at ${significant(x)} per user` };
  });
  const { tokens_per_s: total } = result.bifurcated;
  const box = boxFor(
    "users",
    `Bifurcated gives each user ${significant(total / (state.prompts * state.samples))} tokens/s, and ${wholeText(total / gpus)} per GPU`,
    `From 1 to ${wholeText(high)} prompts of ${plural(state.samples, "sample")}, decode steps alone: arrivals and prefill are in bifurcate serve`,
  );
  lineChart(box, {
    series,
    x: { title: "tokens/s of each sequence", text: tickText },
    y: { title: "tokens/s per GPU" },
    unit: "prompts",
    pick: (prompts) => change({ ...state, prompts }),
  });
}

function findingAlong({ field, unit }, breakEven) {
  const any = field === "samples" ? "number of samples" : "context";
  const from = breakEven[field];
  if (from === undefined) return "The gain shrinks as each sample decodes more tokens";
  if (from === null) return `Bifurcated does not stay faster at any ${any}`;
  if (from <= 1) return `Bifurcated is faster${copied("than")} at any ${any}`;
  return `Bifurcated is faster${copied("than")} with ${field === "samples" ? wholeText(from) : sizeText(from)} or more ${unit}`;
}

function drawSpeedup() {
  const power = (field) => {
    const [low, high] = data.ranges[field];
    return powers([Math.max(low, field === "samples" ? 1 : 128), Math.max(high, 1024)], 14);
  };
  const [columns, rows] = [power("samples"), power("context_tokens")];
  const cells = rows.map((context) =>
    columns.map((samples) => {
      const at = { ...state, samples, context_tokens: context };
      const [standard, bifurcated] = WAYS.map((way) => engine.brief(at, layoutOf(way)));
      const speedup = standard.seconds / bifurcated.seconds;
      return { speedup, standardFits: standard.fits, bifurcatedFits: bifurcated.fits };
    }),
  );
  const fitting = cells.flat().filter((cell) => cell.bifurcatedFits);
  const both = fitting.filter((cell) => cell.standardFits).map((cell) => cell.speedup);
  const best = Math.max(...both);
  const finding =
    fitting.length === 0
      ? "Nothing on this map fits in memory"
      : both.length === 0
        ? "Only bifurcated fits in memory, wherever anything on this map does"
        : best < 1 + data.limits.tie
          ? "Bifurcated gains nothing anywhere on this map"
          : `Where both fit, bifurcated is up to ${timesText(best)} as fast`;
  const box = boxFor(
    "speedup",
    finding,
    `Speed-up${copied("over")} at ${wholeText(state.decoded_tokens)} own tokens: blue where bifurcated is faster, red where standard is, grey where bifurcated does not fit`,
  );
  heatMap(box, {
    columns,
    rows,
    cells,
    now: { x: state.samples, y: state.context_tokens },
    x: { title: "samples of each context" },
    y: { title: "shared context [tokens]" },
    pick: (samples, context) => change({ ...state, samples, context_tokens: context }),
  });
}

function drawOperations(result) {
  const parts = Object.entries(data.parts);
  const rows = WAYS.map((way) => {
    const sums = parts.map(() => 0);
    for (const { part, repeat, seconds } of result[way].operations) sums[part] += repeat * seconds;
    sums[sums.length - 1] += Math.max(0, result[way].host_s - result[way].device_s);
    return {
      line: lineOf(way),
      parts: parts.map(([name, colour], at) => ({ name, colour, value: sums[at] })),
    };
  });
  const [standard, bifurcated] = WAYS.map((way, at) => {
    const attending = rows[at].parts.filter(({ name }) => name.startsWith("attention"));
    const spent = attending.reduce((sum, { value }) => sum + value, 0);
    return `${Math.round((100 * spent) / result[way].seconds)}\u00a0%`;
  });
  const box = boxFor(
    "operations",
    `Attention takes ${standard} of a standard step and ${bifurcated} of a bifurcated one`,
    "Time of a step by what it is spent on",
  );
  barChart(box, { rows, text: timeText });
  showOperations();
}

function drawRoofs(result) {
  const gpu = data.gpus[state.gpu];
  const names = Object.keys(data.parts);
  const attends = ({ part }) => names[part].startsWith("attention");
  const { dtype } = result.bifurcated.operations.find(attends);
  const rates = gpu.flops_per_s[dtype] || Object.values(gpu.flops_per_s)[0];
  const roofs = [
    ["achieved by attention", "attention", style.ink, "solid"],
    ["published", "peak", style.grey, "dot"],
  ].map(([name, from, colour, dash]) => {
    return { name, colour, dash, bandwidth: gpu.bandwidth_bytes_per_s[from], flops: rates[from] };
  });
  const points = [];
  const add = ({ flops, bytes, seconds }, told, bound, look) => {
    const [x, y] = [flops / bytes, flops / seconds];
    const rates = `${significant(x)} FLOP per byte, ${siText(y, "FLOP/s")}`;
    const text = `${told}: ${rates}, ${look.large ? "mostly " : ""}bound by ${bound}`;
    points.push({ x, y, bound, text, ...look });
  };
  const intensity = {};
  for (const way of WAYS) {
    const { operations } = result[way];
    const line = lineOf(way);
    const attention = operations.filter(attends);
    const sum = (field) =>
      attention.reduce((total, operation) => total + operation.repeat * operation[field], 0);
    const [flops, bytes, seconds] = ["flops", "bytes", "seconds"].map(sum);
    const longest = attention.reduce((best, operation) =>
      operation.repeat * operation.seconds > best.repeat * best.seconds ? operation : best,
    );
    intensity[way] = bytes ? flops / bytes : 0; // nothing is read of an empty cache
    const name = `attention, ${way}`;
    const large = { large: true, colour: line.colour, name };
    if (flops > 0) add({ flops, bytes, seconds }, name, longest.bound, large);
    for (const operation of operations) {
      const isAttention = attention.includes(operation);
      if (operation.flops <= 0 || (!isAttention && way === "standard")) continue;
      add(operation, `${operation.name}${isAttention ? `, ${way}` : ""}`, operation.bound, {
        large: false,
        colour: isAttention ? line.colour : style.categories[0],
        name: isAttention ? `its kernels, ${way}` : "matrix products",
      });
    }
  }
  const inL2 = data.layouts[state.kv_layout] === "shared";
  const above = inL2 ? "; standard may lie above them, by bytes that it reads again from L2" : "";
  const box = boxFor(
    "roofs",
    `Standard attention does ${significant(intensity.standard, 2)} FLOP per byte, bifurcated ${significant(intensity.bifurcated, 2)}; its roofs meet at ${wholeText(roofs[0].flops / roofs[0].bandwidth)}`,
    `${gpu.name}: operations under its ${dtype} roofs${above}`,
  );
  roofChart(box, { roofs, points });
}

function drawMemory(result) {
  const [green, purple, sky] = style.categories; // as in the other figures
  const rows = WAYS.map((way) => {
    const { memory } = result[way];
    return {
      line: lineOf(way),
      remark: memory.verdict === "fits" ? "" : `, ${memory.verdict}`,
      parts: [
        { name: "weights", value: memory.weights_bytes, colour: green },
        { name: "KV cache", value: memory.kv_bytes, colour: purple },
        { name: "workspace", value: memory.workspace_bytes, colour: sky },
        { name: "kept by the engine", value: memory.reserve_bytes, colour: style.grey },
      ],
    };
  });
  const { standard, bifurcated } = result;
  const gpu = data.gpus[state.gpu];
  const capacity = bifurcated.memory.capacity_bytes;
  const fit = WAYS.filter((way) => result[way].memory.fits);
  const finding =
    fit.length !== 1
      ? `${fit.length ? "Both fit" : "Neither fits"} in memory`
      : fit[0] === "bifurcated"
        ? `Standard is ${short(standard)} short of memory, bifurcated fits`
        : `Bifurcated is ${short(bifurcated)} short of memory, standard fits`;
  const box = boxFor(
    "memory",
    finding,
    `Memory of one ${gpu.name}; ${Math.round(data.gpu_memory_utilization * 100)} % of it may be used`,
  );
  barChart(box, {
    rows,
    text: gibText,
    limit: { value: capacity, text: `${gibText(capacity)} may be used` },
  });
}

let latest = null;

function showOperations() {
  const table = byId("operations");
  if (!latest || !byId("details").open) return;
  const names = new Map();
  for (const way of WAYS) {
    for (const operation of latest[way].operations) {
      if (operation.seconds <= 0) continue;
      const row = names.get(operation.name) || {};
      const before = row[way] ? row[way].total : 0;
      row[way] = { ...operation, total: before + operation.repeat * operation.seconds };
      names.set(operation.name, row);
    }
  }
  const cells = (one) => {
    if (!one) return ["–", "", "", ""];
    const flops = one.flops ? siText(one.flops * one.repeat, "FLOP") : "0";
    return [timeText(one.total), flops, siText(one.bytes * one.repeat, "B"), one.bound];
  };
  const heads = ["operation", ...WAYS.flatMap((way) => [way, "FLOP", "bytes", "bound by"])];
  const rows = [...names].map(([name, row]) => [
    name,
    ...WAYS.flatMap((way) => cells(row[way])).map((cell) => element("td", {}, cell)),
  ]);
  table.replaceChildren(...tableParts(heads.map((head) => [head]), rows));
}
