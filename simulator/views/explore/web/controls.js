"use strict";

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
  return values.reduce(
    (best, other, at) => (distance(other) < distance(values[best]) ? at : best),
    0,
  );
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
    return element(
      "div",
      { class: "control" },
      element("label", { for: menu.key }, menu.label),
      select,
    );
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
    const box = element("input", {
      type: "text",
      id: `${size.key}-text`,
      inputmode: "text",
      autocomplete: "off",
      spellcheck: "false",
      "aria-label": `${size.label}, exact`,
      "aria-describedby": `${size.key}-problem`,
    });
    const problem = element("div", { class: "problem", id: `${size.key}-problem`, role: "alert" });
    slider.addEventListener("input", () =>
      change({ ...state, [size.field]: values[slider.value] }),
    );
    box.addEventListener("input", () => {
      const value = parseSize(box.value);
      const wrong = sizeProblem(size.field, value);
      problem.textContent = wrong;
      box.setAttribute("aria-invalid", String(wrong !== ""));
      if (wrong === "") change({ ...state, [size.field]: value }, size.field);
    });
    box.addEventListener("blur", showControls);
    controls[size.field] = { slider, box, problem, values };
    return element(
      "div",
      { class: "control" },
      element(
        "div",
        { class: "row" },
        element(
          "span",
          {},
          element("label", { for: size.key }, size.label),
          " ",
          element("span", { class: "hint", id: `${size.key}-hint` }, size.hint),
        ),
        box,
      ),
      slider,
      problem,
    );
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
      : own.choices.map((count) => [
          count,
          count === own.kv_heads ? `${count} (the model's)` : String(count),
        ]);
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
