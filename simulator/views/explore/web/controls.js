/* Sliders, boxes and menus. */

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
  return closest(values, distance);
}

function buildControls() {
  const menus = MENUS.map((menu) => {
    const select = element("select", { id: menu.key, "aria-describedby": `${menu.key}-hint` });
    select.addEventListener("change", () => {
      const value = menu.names ? menu.names.indexOf(select.value) : Number(select.value);
      const changed = { ...state, [menu.field]: value };
      if (menu.field === "model") changed.kv_heads = data.models[value].kv_heads;
      change(changed);
    });
    controls[menu.field] = { select };
    return element("div", { class: "control" }, labelOf(menu), select);
  });
  const limits = LIMITS.map((limit) => {
    const { box, problem } = boxOf(limit, limitProblem, (text) => Number(text) || null);
    box.setAttribute("inputmode", "decimal");
    return controlOf(labelOf({ ...limit, key: `${limit.key}-text` }), box, problem);
  });
  const sizes = SIZES.map((size) => {
    const values = positions(data.ranges[size.field]);
    const slider = element("input", {
      type: "range",
      id: size.key,
      min: 0,
      max: values.length - 1,
      step: 1,
      "aria-describedby": `${size.key}-hint`,
    });
    slider.addEventListener("input", () =>
      change({ ...state, [size.field]: values[slider.value] }),
    );
    const wrong = (text) => sizeProblem(size.field, parseSize(text));
    const { box, problem } = boxOf(size, wrong, parseSize, { slider, values });
    box.setAttribute("aria-label", `${size.label}, exact`);
    return controlOf(labelOf(size), box, slider, problem);
  });
  const form = byId("controls");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.append(
    element("div", { class: "sizes" }, ...sizes),
    element("div", { class: "menus" }, ...menus, ...limits),
  );
  if (window.innerWidth <= NARROW_PX) byId("settings").open = false;
  buildActions();
}

/* Where the page has one column; as in explore.css. */
const NARROW_PX = 860;

/* A name with its box beside it, and what is below them. */
function controlOf(label, box, ...below) {
  const row = element("div", { class: "row" }, label, box);
  return element("div", { class: "control" }, row, ...below);
}

/* A control's name, and below it what it means. */
function labelOf({ key, label, hint }) {
  return element(
    "span",
    {},
    element("label", { for: key }, label),
    element("span", { class: "hint", id: `${key.replace("-text", "")}-hint` }, hint),
  );
}

/* A box to type in, and a place to say what is wrong with it: what is typed counts if nothing is. */
function boxOf({ key, field }, wrongWith, read, others = {}) {
  const box = element("input", {
    type: "text",
    id: `${key}-text`,
    autocomplete: "off",
    spellcheck: "false",
    "aria-describedby": `${key}-problem`,
  });
  const problem = element("div", { class: "problem", id: `${key}-problem`, role: "alert" });
  box.addEventListener("blur", () => showControls());
  box.addEventListener("input", () => {
    const wrong = wrongWith(box.value);
    problem.textContent = wrong;
    box.setAttribute("aria-invalid", String(wrong !== ""));
    if (wrong === "") change({ ...state, [field]: read(box.value) }, field);
  });
  controls[field] = { box, problem, ...others };
  return controls[field];
}

function buildActions() {
  const actions = {
    pin: ["Pin to compare", () => {
      pinned = pinned ? null : { ...state };
      change(state);
    }],
    link: ["Copy link", () => copy(location.href, "link")],
    command: ["Copy command", () => copy(command(), "command")],
    csv: ["Download CSV", () => download(csv(), "bifurcate.csv")],
    reset: ["Back to the scenario", () => change(start)],
  };
  byId("actions").append(
    ...Object.entries(actions).map(([id, [text, act]]) => {
      const button = element("button", { type: "button", id }, text);
      button.addEventListener("click", act);
      return button;
    }),
    element("span", { id: "done", role: "status" }),
  );
}

/* Put a text on the clipboard; where a browser refuses, show it to be copied by hand. */
function copy(text, what) {
  const done = () => setText(byId("done"), `Copied the ${what}.`);
  const refused = () => setText(byId("done"), text);
  if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, refused);
  else refused();
}

function download(text, name) {
  const link = element("a", {
    href: URL.createObjectURL(new Blob([text], { type: "text/csv" })),
    download: name,
  });
  link.click();
  URL.revokeObjectURL(link.href);
}

/* Options of a menu, under headings where it has groups. */
function optionsOf({ names, texts, group }) {
  if (!names) {
    const own = data.models[state.model];
    return own.choices.map((count) =>
      element("option", { value: count }, own.kv_heads === count ? `${count} (the model's)` : `${count}`),
    );
  }
  const shown = texts ? texts() : names;
  const options = names.map((value, at) => element("option", { value }, shown[at]));
  if (!group) return options;
  const groups = new Map();
  options.forEach((option, at) => {
    const label = group(at);
    if (!groups.has(label)) groups.set(label, element("optgroup", { label }));
    groups.get(label).append(option);
  });
  return [...groups.values()];
}

/* Show the state in the controls; the box that is being typed in is left alone. */
function showControls(typing) {
  for (const menu of MENUS) {
    const { field, names, texts } = menu;
    const { select } = controls[field];
    const signature = names ? texts && `${texts()}` : `${state.model}`;
    if (!select.options.length || select.dataset.options !== signature) {
      select.replaceChildren(...optionsOf(menu));
      select.dataset.options = signature;
    }
    if (names && !["model", "gpu", "kv_layout"].includes(field)) {
      [...select.options].forEach((option, at) => {
        option.disabled = runnable({ ...state, [field]: at })[field] !== at;
      });
    }
    select.value = String(names ? names[state[field]] : state[field]);
    select.disabled = select.options.length < 2;
  }
  for (const { field, key, unit, hint } of SIZES) {
    const { slider, values } = controls[field];
    const held = field === "prompts" && onePrompt(state);
    setText(byId(`${key}-hint`), held ? `1: ${held}` : hint);
    slider.value = nearestPosition(values, state[field]);
    slider.disabled = Boolean(held) || !data.moved.includes(field);
    controls[field].box.readOnly = slider.disabled;
    slider.setAttribute("aria-valuetext", `${sizeText(state[field])} ${unit}`);
  }
  for (const { field, empty } of [...SIZES, ...LIMITS]) {
    const { box, problem } = controls[field];
    if (empty) box.placeholder = String(empty());
    if (field === typing) continue;
    box.value = empty ? state[field] || "" : sizeText(state[field]);
    box.setAttribute("aria-invalid", "false");
    problem.textContent = "";
  }
  setText(byId("pin"), pinned ? "Unpin" : "Pin to compare");
  setText(byId("done"), "");
}
