/* What is chosen, what can be chosen, and the address that keeps it. */

const data = JSON.parse(document.getElementById("data").textContent);
const engine = makeModel(data);
/* Of the page itself, light or dark: see explore.css. */
const style = { ...data.style, ink: "var(--ink)", grey: "var(--grey)", pale: "var(--pale)" };
style.unfit_opacity = `var(--unfit, ${style.unfit_opacity})`;

/* Objects with these fields, one for each row of a table. */
const table = (fields, rows) =>
  rows.map((row) => Object.fromEntries(fields.split(" ").map((field, at) => [field, row[at]])));

const SIZES = table("field key flag label hint unit axis", [
  ["samples", "samples", "-n", "Samples", "continuations of each context", "samples", "samples of each context"],
  ["context_tokens", "context", "--context", "Context", "tokens common to the samples", "context tokens", "shared context [tokens]"],
  ["decoded_tokens", "decoded", "--decoded", "Own tokens", "that each sample has decoded so far", "own tokens", "own tokens of each sample"],
  ["prompts", "prompts", "--prompts", "Prompts", "different contexts in the batch", "prompts", "prompts"],
  ["query_tokens", "query-tokens", "--query-tokens", "Query tokens", "of a sequence in a step; more than 1 check drafts", "query tokens", "query tokens per step"],
]).filter(({ field }) => field in data.ranges);
/* Numbers that are no sizes; none is as good as any. */
const LIMITS = table("field key label hint empty", [
  ["target_step_ms", "target", "Target", "longest acceptable step [ms]", () => "none"],
  ["price", "price", "Price", "of a GPU [USD per hour]", () => data.gpus[state.gpu].usd_per_hour || "unknown"],
]);
const LAYOUTS = {
  copies: "a context copy each",
  shared: "one stored context",
  rebuilt: "the context rebuilt each step",
};
const ORIGINS = {
  fitted: "Fitted to times measured on it",
  "fitted in part": "Fitted in part to times measured on it",
  carried: "Carried over from measured GPUs",
  peak: "Published peaks",
};
const offered = (field) => data.choices[field].map(String);
const MENUS = table("field key flag label hint names texts group", [
  ["model", "model", null, "Model", "the scenario's first, then every preset", data.models.map(({ name }) => name)],
  ["gpu", "gpu", null, "GPU", "and what its times rest on", data.gpus.map(({ id }) => id),
    () => data.gpus.map(({ name }) => name), (at) => ORIGINS[data.gpus[at].origin]],
  ["tensor_parallel", "tp", "--tp", "Tensor parallel", "GPUs that split each layer", offered("tensor_parallel")],
  ["weight_dtype", "dtype", "--dtype", "Weights", "number format of the layers' matrices", offered("weight_dtype"),
    () => ownFormat("weight_dtype", "dtypes")],
  ["kv_dtype", "kv-dtype", "--kv-dtype", "KV cache", "number format of cached keys and values", offered("kv_dtype"),
    () => ownFormat("kv_dtype", "kv_dtypes")],
  ["kv_layout", "kv-layout", "--kv-layout", "Standard keeps", "how standard attention stores the context", data.layouts,
    () => data.layouts.map((layout) => LAYOUTS[layout])],
  ["kv_heads", "kv-heads", null, "KV heads", "what if the model had others"],
  ["kernel", "kernel", "--kernel", "Kernel", "of attention; all for the scenario's models", offered("kernel")],
  ["execution", "execution", "--execution", "Execution", "how the GPU is given its kernels", offered("execution")],
]);
const start = {
  ...Object.fromEntries(SIZES.map(({ field }) => [field, data.start[field]])),
  ...Object.fromEntries(
    MENUS.filter(({ names }) => names).map(({ field, names }) => [
      field,
      Math.max(0, names.indexOf(String(data.start[field]))),
    ]),
  ),
  kv_heads: data.start.kv_heads,
  target_step_ms: data.target_step_ms,
  price: null,
};
let state = runnable(start);
let pinned = null;
const controls = {};
const boxes = {};

/* Names of formats, "auto" being the checkpoint's own. */
function ownFormat(field, of) {
  const [own] = data.models[state.model][of];
  return data.choices[field].map((name) => (name === "auto" ? `${own} (the checkpoint's)` : name));
}

/* Why the kernel takes one prompt alone; nothing if it takes several. */
function onePrompt({ kernel }) {
  return data.one_prompt[data.choices.kernel[kernel]];
}

/* The nearest state that the page has a program for: a model may lack KV heads or a kernel, and a kernel
   several prompts. */
function runnable(wanted) {
  const chosen = recorded(wanted);
  return onePrompt(chosen) ? { ...chosen, prompts: 1 } : chosen;
}

function recorded(wanted) {
  const chosen = { ...wanted };
  const { choices, kv_heads: own } = data.models[chosen.model];
  if (!choices.includes(chosen.kv_heads)) {
    chosen.kv_heads = choices.includes(own) ? own : choices.at(-1);
  }
  const tries = [["kernel", "flash"], ["execution", "graph"], ["tensor_parallel", "1"]];
  for (const [field, usual] of [[], ...tries]) {
    if (field) chosen[field] = Math.max(0, offered(field).indexOf(usual));
    if (engine.runs(chosen)) return chosen;
  }
  const begin = { kernel: data.start.kernel, execution: data.start.execution };
  for (const [field, name] of Object.entries(begin)) chosen[field] = offered(field).indexOf(name);
  return chosen;
}

/* Read 8192, 8K (8192) or 8k (8000), as the command line does; null for what is no count. */
function parseSize(text) {
  const match = /^((?:\d+|\d{1,3}(?:[,_]\d{3})+)(?:\.\d+)?)([kmKM]?)$/.exec(text.trim());
  if (!match) return null;
  const value = Number(match[1].replace(/[_,]/g, "")) * { "": 1, k: 1e3, m: 1e6, K: 1024, M: 2 ** 20 }[match[2]];
  return Number.isInteger(value) ? value : null;
}

/* What is wrong with a size, or nothing. */
function sizeProblem(field, value) {
  if (!data.moved.includes(field)) {
    return value === start[field] ? "" : `fixed by the scenario at ${wholeText(start[field])}`;
  }
  const [lowest] = data.ranges[field];
  const least = field.endsWith("_tokens") && field !== "query_tokens" ? 0 : Math.max(1, lowest);
  if (value === null) return "write 8192, 8K (8192) or 8k (8000)";
  if (value < least) return `at least ${least}`;
  if (value > data.limits.count) return `at most ${wholeText(data.limits.count)}`;
  const sizes = { query_tokens: 1, ...state, [field]: value };
  const each = sizes.context_tokens + sizes.decoded_tokens + sizes.query_tokens;
  const all = sizes.prompts * sizes.samples * each;
  return all > data.limits.tokens ? "too many tokens in all" : "";
}

/* What is wrong with a target or a price, or nothing. */
function limitProblem(text) {
  return text.trim() === "" || Number(text) > 0 ? "" : "write a number above 0, or nothing";
}

/* A state in words, as an address holds it. */
function wordsOf(chosen) {
  const words = [
    ...MENUS.map(({ field, key, names }) => [key, names ? names[chosen[field]] : chosen[field]]),
    ...SIZES.map(({ field, key }) => [key, chosen[field]]),
    ...LIMITS.filter(({ field }) => chosen[field]).map(({ field, key }) => [key, chosen[field]]),
  ];
  return words.map(([key, value]) => `${key}=${encodeURIComponent(value)}`).join("&");
}

/* The address keeps what is shown and what is pinned, so that a view can be kept and passed on. */
function writeAddress() {
  const pin = pinned ? `&pin=${encodeURIComponent(wordsOf(pinned))}` : "";
  history.replaceState(null, "", `#${wordsOf(state)}${pin}`);
}

/* Take what an address says; what it says that this page cannot do is named, and left. */
function readAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  const pin = words.get("pin");
  words.delete("pin");
  const ignored = [];
  pinned = pin ? readWords(new URLSearchParams(pin), ignored) : null;
  state = readWords(words, ignored);
  return ignored;
}

function readWords(words, ignored) {
  const wanted = { ...start };
  for (const [key, text] of words) {
    const [menu, size, limit] = [MENUS, SIZES, LIMITS].map((items) =>
      items.find((item) => item.key === key),
    );
    if (menu && menu.names && menu.names.includes(text)) {
      wanted[menu.field] = menu.names.indexOf(text);
    } else if (menu && !menu.names && Number(text) > 0) wanted[menu.field] = Number(text);
    else if (size && sizeProblem(size.field, parseSize(text)) === "") {
      wanted[size.field] = parseSize(text);
    } else if (limit && Number(text) > 0) wanted[limit.field] = Number(text);
    else ignored.push(`${key}=${text}`);
  }
  if (words.has("model") && !words.has("kv-heads")) {
    wanted.kv_heads = data.models[wanted.model].kv_heads;
  }
  const taken = runnable(wanted);
  for (const { field, key, names } of [...MENUS, ...SIZES]) {
    if (words.has(key) && taken[field] !== wanted[field]) {
      ignored.push(`${key}=${names ? names[wanted[field]] : wanted[field]}`);
    }
  }
  return taken;
}

/* What a page says of another state than its own. */
function inState(other, say) {
  const own = state;
  state = other;
  try {
    return say();
  } finally {
    state = own;
  }
}
