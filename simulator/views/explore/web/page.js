/* The page as a whole: every change goes through here. */

let waiting = 0;

function change(wanted, typing) {
  state = runnable(wanted);
  showControls(typing);
  writeAddress();
  update([]);
}

/* The answer at once, the figures with the next picture of the screen. */
function update(ignored) {
  latest = engine.compare(state);
  const searched = ["samples", "context_tokens"].filter((field) => data.moved.includes(field));
  const breakEven = Object.fromEntries(
    searched.map((field) => [field, engine.breakEven(state, field)]),
  );
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
  if ("users" in boxes) drawUsers(latest);
  drawOperations(latest);
  drawRoofs(latest);
  drawMemory(latest);
}

function begin() {
  document.body.style.fontFamily = style.font;
  setText(byId("question"), data.scenario.question);
  buildControls();
  buildFigures();
  measureFigures();
  const ignored = readAddress();
  showControls();
  update(ignored);
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) {
      measureFigures();
      update([]);
    }
    width = window.innerWidth;
  });
  window.addEventListener("hashchange", () => {
    const left = readAddress();
    showControls();
    update(left);
  });
}

begin();
