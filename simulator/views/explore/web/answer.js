/* The answer in words, as a table and as CSV, and the footer. */

const WAYS = ["standard", "bifurcated"];

function lineOf(way) {
  const line = style.lines[way];
  const layout = way === "standard" ? `, ${LAYOUTS[data.layouts[state.kv_layout]]}` : "";
  return { ...line, name: line.name + layout };
}

function showAnswer(result, breakEven) {
  const gpus = data.choices.tensor_parallel[state.tensor_parallel];
  const { name: model } = data.models[state.model];
  const place = `${gpus > 1 ? `${gpus} x ` : ""}${data.gpus[state.gpu].name}`;
  const title = `${model} on ${place}: ${plural(state.samples, "sample")} of ${sizeText(state.context_tokens)} shared tokens`;
  setText(byId("title"), title);
  document.title = title;
  setText(byId("headline"), headline(result));
  const most = WAYS.map((way) => [lineOf(way).name, engine.mostSamples(state, layoutOf(way))]);
  const base = comparable(result);
  const sure = engine.ratioInterval(base, result.bifurcated);
  const over = base === result.standard ? "" : " over one stored context";
  const remarks = [
    sure.high === Infinity
      ? `Between which values the speed-up${over} lies is not known.`
      : `The speed-up${over} lies between ${sure.low.toFixed(2)} and ${sure.high.toFixed(2)}.`,
    over ? "" : overStored(result),
    result.kv_io_ratio > 1
      ? `Bifurcated reads ${significant(result.kv_io_ratio)} times fewer KV bytes; that ratio is not the speed-up.`
      : "Both read the same KV bytes.",
    breakEvenText(breakEven, result.speedup > 1),
    `Most samples that fit: ${most.map(([name, found]) => `${mostText(found)} (${name})`).join(", ")}.`,
    againstPinned(result),
    tooLong(),
  ];
  const list = byId("remarks");
  list.replaceChildren(...remarks.filter(Boolean).map((remark) => element("li", {}, remark)));
  showTable("ways", result, "Now");
  byId("pinned").hidden = !pinned;
  if (pinned) {
    const now = wordsOf(state).split("&");
    const differs = wordsOf(pinned).split("&").filter((word) => !now.includes(word));
    const caption = `Pinned: ${differs.join(", ") || "the same"}`;
    inState(pinned, () => showTable("pinned-ways", engine.compare(state), caption));
  }
}

/* The most that will do, surely and as far as one can say. */
function mostText({ surely, perhaps }) {
  if (perhaps === null) return "none";
  if (surely === null) return `perhaps ${wholeText(perhaps)}`;
  return surely === perhaps ? wholeText(perhaps) : `${wholeText(surely)} to ${wholeText(perhaps)}`;
}

function plural(count, noun) {
  return `${wholeText(count)} ${noun}${count === 1 ? "" : "s"}`;
}

/* What a step takes now against the pinned one. */
function againstPinned(result) {
  if (!pinned) return "";
  const before = inState(pinned, () => engine.compare(state));
  const ratio = (way) => `${timesText(before[way].seconds / result[way].seconds)} as fast as pinned`;
  return `Standard is ${ratio("standard")}, bifurcated ${ratio("bifurcated")}.`;
}

/* What is gained over one stored context, nothing where that is as much, as `bifurcate compare`. */
function overStored({ stored, bifurcated, speedup }) {
  const ratio = stored.seconds / bifurcated.seconds;
  if (Math.abs(speedup / ratio - 1) < data.limits.tie) return "";
  const times = `${ratio.toFixed(2)} times as fast`;
  return `Over one stored context, as paged caches keep it, bifurcated is ${times}.`;
}

/* What bifurcated is held against: one stored context where copies do not fit and it does. */
function comparable({ standard, stored }) {
  return !standard.memory.fits && stored.memory.fits ? stored : standard;
}

/* The answer in a sentence, as `bifurcate compare` decides it. */
function headline(result) {
  const { standard, bifurcated } = result;
  const base = comparable(result);
  if (!base.memory.fits && !bifurcated.memory.fits) {
    return `Neither fits: bifurcated is ${short(bifurcated)} short of memory`;
  }
  if (!base.memory.fits) return `Only bifurcated fits: ${timeText(bifurcated.seconds)} a step`;
  if (!bifurcated.memory.fits) return `Only standard fits: ${timeText(base.seconds)} a step`;
  const ratio = base.seconds / bifurcated.seconds;
  const times = `${timeText(bifurcated.seconds)} against ${timeText(base.seconds)} a step`;
  const sure = engine.ratioInterval(base, bifurcated).verdict;
  const winner = engine.winner(ratio, true, true);
  const once = sure === "yes" && winner === "bifurcated" && storedOnce(result);
  if (once) return once;
  const lead =
    sure === "too close to call" || sure === "not known"
      ? sure[0].toUpperCase() + sure.slice(1)
      : winner === "tie"
        ? "No difference to act on"
        : winner === "bifurcated"
          ? "Bifurcated wins"
          : "Standard wins";
  const faster = `${lead === "Bifurcated wins" ? "" : "bifurcated is "}${timesText(ratio)} as fast, ${times}`;
  if (base !== standard) {
    return `Context copies do not fit. Over one stored context: ${lead.toLowerCase()}, ${faster}`;
  }
  return `${lead}: ${faster}`;
}

/* Why no engine's kernel reads the context once here; empty if some may. */
function whyBarred() {
  return data.texts[data.gpus[state.gpu].barred[state.model]];
}

/* That one stored context is enough: where reading it once is not sure to gain more, gains little, or has
   no kernel. */
function storedOnce({ standard, stored, bifurcated }) {
  const { verdict } = engine.ratioInterval(stored, bifurcated);
  const gain = stored.seconds / bifurcated.seconds;
  const barred = whyBarred();
  if (!stored.memory.fits || (verdict === "yes" && gain >= data.limits.worth && !barred)) return "";
  const reading = stored === standard ? "reading the context once" : "reading it once as well";
  const moreBy = (verb) => `${reading} ${verb} ${gain.toFixed(2)} times as fast`;
  const more =
    verdict === "no"
      ? `${reading} gains nothing more`
      : barred
        ? `${moreBy(verdict === "yes" ? "would be" : "may be")}, but ${barred}`
        : verdict === "yes"
          ? `${moreBy("is")}, too little to change kernels for`
          : `whether ${reading} gains more is ${verdict}`;
  if (stored === standard) return `Keep standard attention; ${more}`;
  if (!standard.memory.fits) return `Store the context once, as paged caches do; ${more}`;
  const times = `${timeText(stored.seconds)} against ${timeText(standard.seconds)} a step`;
  const faster = `${timesText(standard.seconds / stored.seconds)} as fast, ${times}`;
  return `Store the context once, as paged caches do: ${faster}; ${more}`;
}

function fitsText(step) {
  const { verdict } = step.memory;
  if (verdict === "does not fit") return `no, ${short(step)} short`;
  return verdict === "fits" ? "yes" : verdict;
}

function short(step) {
  return gibText(step.memory.total_bytes - step.memory.capacity_bytes);
}

/* What bifurcated attention is compared with, where standard keeps no single context. */
function copied(word) {
  return data.layouts[state.kv_layout] === "copies" ? ` ${word} context copies` : "";
}

/* As `bifurcate compare` says it; a tree has no context to look along. */
function breakEvenText({ samples, context_tokens: context }, wins) {
  const here = plural(state.samples, "sample");
  const found = [
    samples && `with ${wholeText(samples)} or more samples at this context`,
    context && `with ${sizeText(context)} or more context tokens at ${here}`,
  ].filter(Boolean);
  if (!found.length) {
    return wins
      ? `Bifurcated does not stay faster with more samples${context === undefined ? "" : ", nor with a longer context"}.`
      : `More samples do not make bifurcated faster for good${context === undefined ? "" : ", nor does a longer context"}.`;
  }
  let rest = "";
  if (samples === null) {
    rest = wins
      ? "; with more samples it does not stay faster"
      : "; more samples alone do not make it faster for good";
  } else if (context === null) {
    rest = wins
      ? `; at ${here} it does not stay faster with a longer context`
      : `; at ${here} a longer context does not make it faster for good`;
  }
  const is = whyBarred() ? "would be" : "is";
  return `Bifurcated ${is} faster${copied("than")} ${found.join(", and ")}${rest}.`;
}

/* 11.9 to 13.3 ms. */
function betweenText({ low, high }) {
  const [first, last] = [timeText(low), timeText(high)];
  if (high === Infinity) return `at least ${first}, interval not known`;
  const [number, unit] = first.split(" ");
  return `${last.endsWith(` ${unit}`) ? number : first} to ${last}`;
}

function tooLong() {
  const { most_tokens: most, name } = data.models[state.model];
  const tokens = state.context_tokens + state.decoded_tokens;
  return most && tokens > most
    ? `Warning: ${wholeText(tokens)} tokens exceed the ${wholeText(most)} that ${name} was made for.`
    : "";
}

/* The rows of the answer's table: their names, and how each way's is written. */
function answerRows(result) {
  const price = state.price || data.gpus[state.gpu].usd_per_hour;
  const gpus = data.choices.tensor_parallel[state.tensor_parallel];
  const target = state.target_step_ms;
  return [
    ["Step", (step) => timeText(step.seconds)],
    ["Between", (step) => betweenText(step.interval)],
    ["Speed-up", (step) => speedupText(result, step)],
    ["Bound by", (step) => step.bound],
    ["Tokens/s", (step) => wholeText(step.tokens_per_s)],
    ["KV read", (step) => siText(step.totals.kv_bytes_read || 0, "B")],
    ["Memory", (step) => gibText(step.memory.total_bytes)],
    [`Fits in ${gibText(result.standard.memory.capacity_bytes)}`, fitsText],
    target && [
      `Most samples in ${significant(target)} ms`,
      ({ way }) => mostText(engine.mostSamples(state, way, target / 1e3)),
    ],
    price && [
      "USD per million tokens",
      ({ memory, tokens_per_s: rate }) =>
        memory.fits ? significant((price * gpus * 1e6) / (rate * 3600)) : "–",
    ],
  ].filter(Boolean);
}

/* No speed-up over what does not fit. */
function speedupText({ standard }, step) {
  if (!standard.memory.fits || !step.memory.fits) return "–";
  return `${(standard.seconds / step.seconds).toFixed(2)}x`;
}

function showTable(id, result, caption) {
  const rows = answerRows(result);
  const swatch = { class: "swatch", viewBox: "0 0 26 12", "aria-hidden": "true" };
  const heads = WAYS.map(lineOf).map((line) => [
    element("svg", swatch, lineSwatch(line)),
    line.name,
  ]);
  const body = rows.map(([name, text]) => [
    name,
    ...WAYS.map((way) => {
      const unfit = name.startsWith("Fits") && !result[way].memory.fits ? "unfit" : null;
      return element("td", { "data-way": way, class: unfit }, text(result[way]));
    }),
  ]);
  const parts = tableParts([[""], ...heads], body);
  byId(id).replaceChildren(element("caption", {}, caption), ...parts);
}

/* The head and the body of a table: what stands in each column's head; each row's name and cells. */
function tableParts(heads, rows) {
  const head = heads.map((children) => element("th", { scope: "col" }, ...children));
  const body = rows.map(([name, ...cells]) =>
    element("tr", {}, element("th", { scope: "row" }, name), ...cells),
  );
  return [element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body)];
}

function command() {
  const own = data.models[state.model];
  const quoted = (text) =>
    /^[\w./,=+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
  const words = ["bifurcate compare"];
  words.push("-m", quoted(own.asked), "-g", quoted(data.gpus[state.gpu].asked));
  if (state.kv_heads !== own.kv_heads) words.push("--kv-heads", state.kv_heads);
  for (const { field, flag } of SIZES) {
    const unsaid = ["prompts", "query_tokens"].includes(field) && state[field] === 1;
    if (!unsaid && data.moved.includes(field)) words.push(flag, state[field]);
  }
  for (const { field, flag, names } of MENUS) {
    const said = flag && names[state[field]];
    if (said && said !== "auto" && !(flag === "--tp" && said === "1")) words.push(flag, said);
  }
  const flags = { accepted_tokens: "--accepted-tokens", tree: "--tree" };
  for (const [field, value] of Object.entries(data.kept)) {
    if (field in flags) words.push(flags[field], quoted(String(value)));
  }
  if (data.constants !== "auto") words.push("--constants", data.constants);
  if (data.gpu_memory_utilization !== 0.9) {
    words.push("--gpu-memory-utilization", data.gpu_memory_utilization);
  }
  return words.join(" ");
}

/* The answer's table, with all settings: what is shown, and what is pinned. */
function csv() {
  const rows = [pinned, state].filter(Boolean).flatMap((chosen) => inState(chosen, csvRows));
  const quoted = (text) => (/[",]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return rows
    .map((row) => `${row.map((item) => quoted(String(item))).join(",")}\n`)
    .filter((line, at, all) => all.indexOf(line) === at)
    .join("");
}

function csvRows() {
  const result = engine.compare(state);
  const asked = [...MENUS, ...SIZES].map(({ field, names }) => [
    field,
    names ? names[state[field]] : state[field],
  ]);
  const found = (step) => [
    ["attention", step.way === "bifurcated" ? "bifurcated" : "standard"],
    ["step_ms", step.seconds * 1e3],
    ["step_ms_low", step.interval.low * 1e3],
    ["step_ms_high", step.interval.high * 1e3],
    ["bound", step.bound],
    ["tokens_per_s", step.tokens_per_s],
    ["kv_bytes_read", step.totals.kv_bytes_read || 0],
    ["total_bytes", step.memory.total_bytes],
    ["memory_verdict", step.memory.verdict],
  ];
  const lines = WAYS.map((way) => [...asked, ...found(result[way])]);
  return [lines[0].map(([name]) => name), ...lines.map((line) => line.map(([, item]) => item))];
}

function showFooter(ignored) {
  const gpu = data.gpus[state.gpu];
  const own = data.models[state.model];
  const kept = Object.entries(data.kept)
    .map(([field, value]) => `${field} = ${value}`)
    .join(", ");
  const { id, title, expected } = data.scenario;
  const warning = `This page has no ${ignored.join(", ")}: left out.`;
  const typed = element("code", { class: "command" }, command());
  const texts = [
    `${own.name}: ${own.phrases[own.choices.indexOf(state.kv_heads)]}, ${own.dtypes[state.weight_dtype]} weights. ${gpu.name}: profile ${gpu.hash}. ${gpu.note}`,
    ...own.notes,
    `Scenario ${id} (${title}); of its whole grid it expects: ${expected}.${kept ? ` Kept as it has them: ${kept}.` : ""} Tokens per second count all samples. The address of this page holds the view.`,
    `Computed here, offline, by the simulator's own equations, written down by version ${data.version} when the page was made: the same as bifurcate compare, to rounding.`,
  ];
  byId("footer").replaceChildren(
    ...(ignored.length ? [element("p", { class: "warning" }, warning)] : []),
    element("p", {}, "The same from the command line: ", typed),
    ...texts.map((text) => element("p", {}, text)),
  );
}
