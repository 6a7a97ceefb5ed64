"use strict";

/* What is chosen, what can be chosen, and the address that keeps it. */

const data = JSON.parse(document.getElementById("data").textContent);
const engine = makeModel(data);
const style = data.style;

const SIZES = [
  {
    field: "samples",
    key: "samples",
    flag: "-n",
    label: "Samples",
    hint: "of each context",
    unit: "samples",
    axis: "samples of each context",
  },
  {
    field: "context_tokens",
    key: "context",
    flag: "--context",
    label: "Context",
    hint: "shared tokens",
    unit: "context tokens",
    axis: "shared context [tokens]",
  },
  {
    field: "decoded_tokens",
    key: "decoded",
    flag: "--decoded",
    label: "Own tokens",
    hint: "per sample",
    unit: "own tokens",
    axis: "own tokens of each sample",
  },
  {
    field: "prompts",
    key: "prompts",
    flag: "--prompts",
    label: "Prompts",
    hint: "at once",
    unit: "prompts",
    axis: "prompts",
  },
  {
    field: "query_tokens",
    key: "query-tokens",
    flag: "--query-tokens",
    label: "Query tokens",
    hint: "per step",
    unit: "query tokens",
    axis: "query tokens per step",
  },
].filter(({ field }) => field in data.ranges);
const LAYOUTS = {
  copies: "a context copy each",
  shared: "one stored context",
  rebuilt: "the context rebuilt each step",
};
const MENUS = [
  { field: "model", key: "model", label: "Model", names: data.models.map(({ name }) => name) },
  {
    field: "gpu",
    key: "gpu",
    label: "GPU",
    names: data.gpus.map(({ id }) => id),
    texts: data.gpus.map(({ name }) => name),
  },
  { field: "kv_heads", key: "kv-heads", label: "KV heads" },
  { field: "kernel", key: "kernel", label: "Kernel", names: data.kernels },
  { field: "execution", key: "execution", label: "Execution", names: data.executions },
  {
    field: "kv_layout",
    key: "kv-layout",
    label: "Standard keeps",
    names: data.layouts,
    texts: data.layouts.map((layout) => LAYOUTS[layout]),
  },
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

/* The nearest state that the page has a program for: a model may lack KV heads or a kernel. */
function runnable(wanted) {
  const chosen = { ...wanted };
  const { choices, kv_heads: own } = data.models[chosen.model];
  if (!choices.includes(chosen.kv_heads)) {
    chosen.kv_heads = choices.includes(own) ? own : choices.at(-1);
  }
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
  const {
    prompts,
    samples,
    context_tokens: context,
    decoded_tokens: own,
    query_tokens: query = 1,
  } = { query_tokens: data.kept.query_tokens, ...state, [field]: value };
  if (prompts * samples * (context + own + query) > data.limits.tokens) {
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
    if (menu && menu.names && menu.names.includes(text)) {
      wanted[menu.field] = menu.names.indexOf(text);
    } else if (menu && !menu.names && Number(text) > 0) wanted[menu.field] = Number(text);
    else if (size && sizeProblem(size.field, parseSize(text)) === "") {
      wanted[size.field] = parseSize(text);
    } else ignored.push(`${key}=${text}`);
  }
  if (words.has("model") && !words.has("kv-heads")) {
    wanted.kv_heads = data.models[wanted.model].kv_heads;
  }
  const taken = runnable(wanted);
  if (words.has("kv-heads") && taken.kv_heads !== wanted.kv_heads) {
    ignored.push(`kv-heads=${wanted.kv_heads}`);
  }
  if (words.has("kernel") && taken.kernel !== wanted.kernel) {
    ignored.push(`kernel=${data.kernels[wanted.kernel]}`);
  }
  state = taken;
  return ignored;
}
