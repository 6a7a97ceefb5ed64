"""The explorer's page: what it computes is what the Python model computes, and it is well made."""

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from explore_points import ANSWER, BOUND, covering, question, random_states, truth, worst_error

from simulator.answers.capacity import Capacity
from simulator.answers.compare import compare
from simulator.answers.estimate import Question, latent_forms
from simulator.answers.study import narrowed
from simulator.inputs.scenario import load_scenario
from simulator.resources import SCENARIO_PATH_VARIABLE
from simulator.timing.interval import shipped_spreads
from simulator.views.explore.alike import Differ, together
from simulator.views.explore.menu import Menu, menu
from simulator.views.explore.page import page, page_data
from simulator.views.explore.symbol import Recorder
from simulator.views.explore.tape import Tapes

WEB = Path(__file__).parents[2] / "simulator" / "views" / "explore" / "web"
TREE = """schema_version = 1
id = "tree"
title = "t"
description = "d"
question = "q"
sources = ["s"]
verdict = "mixed"
verdict_reason = "r"
models = ["mistral-7b"]
gpus = ["h100-sxm"]
[workload]
tree = "system=2K,problem=512x8"
samples = [1, 8]
query_tokens = 4
accepted_tokens = 2.5
"""
MIXED = (
    TREE.replace('"tree"', '"mixed"')
    .replace("mistral-7b", "kimi-k2")
    .replace('tree = "system=2K,problem=512x8"', 'latent_form = "mixed"')
)
# Everything; tensor parallel over 8 GPUs; a latent cache and fp8 weights; bare peaks; a prefix
# tree; query tokens that can be moved, also where a stored context has no interval.
MENUS: dict[str, dict[str, Any]] = {
    "code-sampling-8k": {},
    "shared-prefix-throughput": {"models": ["codellama-13b"], "gpus": ["a100-sxm-40gb", "h20"]},
    "mla-deepseek-v3": {"models": ["deepseek-v3"], "gpus": ["h100-sxm", "a100-sxm-80gb"]},
    "one-sample": {"models": ["gemma-2-9b"], "gpus": ["l4", "mi300x"], "constants": "peak"},
    "tree": {"models": ["mistral-7b"], "gpus": ["h100-sxm", "a40"]},
    "mixed": {"models": ["kimi-k2"], "gpus": ["h100-sxm"]},
    "speculative-samples": {"models": ["llama-3.1-8b"], "gpus": ["h100-sxm", "mi300x"]},
}


def small_menu(scenario: str = "code-sampling-8k") -> Menu:
    """Return a menu that is quick to record."""
    return menu(load_scenario(scenario), models=["llama-3.1-8b"], gpus=["h100-sxm", "l4"])


def run_script(data: dict[str, Any], states: list[Any], ask: str) -> list[Any]:
    """Ask the page's script about states, in Node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed; tests/browser asks the script in a browser")
    driver = f"""
const {{ makeModel }} = require({json.dumps(str(WEB / "model.js"))});
const {{ data, states }} = JSON.parse(require("fs").readFileSync(0, "utf8"));
const engine = makeModel(data);
process.stdout.write(JSON.stringify(states.map({ask})));
"""
    done = subprocess.run(
        [node, "-e", driver],
        input=json.dumps({"data": data, "states": states}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers


@cache
def whole_page() -> str:
    """Return the page that the command writes when nothing is chosen."""
    return page(menu(load_scenario("code-sampling-8k")))


@pytest.mark.parametrize("scenario", MENUS)
def test_the_script_answers_as_estimate_does(
    scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At random points that follow all of the page, numbers are Python's to the bound promised."""
    for name, text in (("tree", TREE), ("mixed", MIXED)):
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
    monkeypatch.setenv(SCENARIO_PATH_VARIABLE, str(tmp_path))
    settings = MENUS[scenario]
    offer = menu(load_scenario(scenario), **settings)
    if settings:
        data = json.loads(json.dumps(page_data(offer)))
    else:
        embedded = re.search('type="application/json">(.*?)</script>', whole_page(), re.DOTALL)
        assert embedded is not None
        data = json.loads(embedded[1])
    states = random_states(data, 250, seed=17)
    if not settings:
        # Of the whole page, with all its models and GPUs, what thousands of states follow.
        states = covering(data, random_states(data, 3000, seed=17))
    answers = run_script(data, states, ANSWER)
    errors = [
        worst_error(answer, truth(offer, data, state))
        for answer, state in zip(answers, states, strict=True)
    ]
    worst = max(range(len(errors)), key=errors.__getitem__)
    assert errors[worst] <= BOUND, states[worst]


def test_the_script_finds_the_limits_that_python_finds() -> None:
    """Break-even points and the most samples that fit, in time or not, are those of Python."""
    offer = small_menu()
    data = json.loads(json.dumps(page_data(offer)))
    states = random_states(data, 40, seed=5)
    ask = """(state) => [
      engine.breakEven(state, "samples"), engine.breakEven(state, "context_tokens"),
      ...[data.layouts[state.kv_layout], "bifurcated"].flatMap((way) =>
        [Infinity, 0.02].map((most_s) => engine.mostSamples(state, way, most_s))),
    ]"""
    for state, found in zip(states, run_script(data, states, ask), strict=True):
        model, gpu, setup, work = question(offer, data, state)
        result = compare(Question(model, gpu, setup, work))
        held = [
            Capacity(step, target_s)
            for step in (result.standard, result.bifurcated)
            for target_s in (None, 0.02)
        ]
        most = [
            {"surely": each.most_samples_surely, "perhaps": each.most_samples_in_time}
            for each in held
        ]
        expected = [result.break_even_samples, result.break_even_context_tokens, *most]
        assert found == expected, state


def test_what_is_recorded_is_what_numpy_does() -> None:
    """Every operation of the model's arithmetic, recorded and followed, gives numpy's result."""
    recorder = Recorder()
    x, y = recorder.variable(0), recorder.variable(1)

    def formulas(x: Any, y: Any) -> list[Any]:
        return [
            -(-x // y),
            np.where(x > y, x - 3, y / 7),
            np.maximum(x, np.minimum(y, 2)) ** 2.5,
            np.sqrt(x * y + x) * 1 + 0,
            (x >= y) + (x <= y) * 2 + (x == y) * 4 + (x != 5) * 8,
            (1 - 0.25) ** x,
            x * 0,
            x % y,
            round(x * 2.5),
        ]

    tapes = Tapes()
    tape = tapes.add(recorder, formulas(x, y))
    written = {"structures": tapes.structures.items, "tapes": tapes.tapes.items}
    data = page_data(small_menu()) | written
    points = [(7.0, 2.0), (2.0, 7.0), (5.0, 5.0), (1.5, 0.25)]
    found = run_script(data, [list(point) for point in points], f"(p) => engine.follow({tape}, p)")
    for point, got in zip(points, found, strict=True):
        expected = [float(value) for value in formulas(*map(np.float64, point))]
        assert got == pytest.approx(expected, rel=1e-15)


def test_a_known_number_guards_what_it_decided() -> None:
    """A recording notes the branches it took, and follows them for all numbers that pass."""
    recorder = Recorder()
    x, heads, ranks = map(recorder.variable, range(3))
    recorder.suppose({1: 32, 2: 4})
    split = heads // ranks if heads % ranks == 0 else heads / ranks
    cost = x * split
    cost += heads
    tapes = Tapes()
    symbols = [symbol for symbol, _ in recorder.guards.values()]
    assert [value for _, value in recorder.guards.values()] == [1.0]
    guards, tape = tapes.add(recorder, symbols), tapes.add(recorder, [cost])
    sizes, counts = np.array([4.0, 6.0, 8.0]), np.array([40.0, 40.0, 64.0])
    assert tapes.follow(guards, {1: counts, 2: sizes})[0].tolist() == [True, False, True]
    assert tapes.follow(tape, {0: 3.0, 1: counts, 2: sizes})[0][[0, 2]].tolist() == [70.0, 88.0]
    # Lengths, and numbers that Python needs, hold for themselves alone.
    assert list(range(ranks)) == [0, 1, 2, 3]
    assert recorder.guards[ranks.key][1] == 4
    # Supposing other numbers, nothing is decided yet.
    recorder.suppose({1: 32, 2: 1})
    assert (list(range(ranks)), recorder.guards[ranks.key][1], len(recorder.guards)) == ([0], 1, 1)


def test_items_are_taken_together_until_they_differ() -> None:
    """Code runs once for several items, and says for which of them a decision went another way."""
    made = [SimpleNamespace(rate=1.0, name="a"), SimpleNamespace(rate=3.0, name="a")]
    cards = together(made, {})
    assert cards.name == "a"
    assert (10 / cards.rate).tolist() == pytest.approx([10, 10 / 3])
    assert cards.rate > 0
    with pytest.raises(Differ) as found:
        bool(cards.rate > 2)
    assert found.value.mask == [False, True]


def test_a_symbol_has_no_value() -> None:
    """Code that decides by a value cannot be recorded, and says so."""
    x = Recorder().variable(0)
    for use in (bool, float, int, len, hash, lambda symbol: 1 if symbol > 2 else 0):
        with pytest.raises(TypeError, match="a symbol has no value"):
            use(x)
    with pytest.raises(TypeError, match="cannot follow numpy's sin"):
        np.sin(x)
    with pytest.raises(TypeError, match=r"cannot follow numpy's add\.reduce"):
        np.add.reduce(x)


def test_gpus_share_a_tape_and_have_columns_of_their_own() -> None:
    """What differs between GPUs is read from columns, which other tapes read as well."""
    recorder, tapes = Recorder(), Tapes()
    x = recorder.variable(0)
    rates = np.array([2.0, 4.0])
    first = tapes.add(recorder, [x / rates, 3 * x], gpus=(0, 2))
    second = tapes.add(recorder, [rates - x], gpus=(0, 2))
    assert tapes.columns.items == [(2, 0, 4)]
    written = {
        "structures": tapes.structures.items,
        "tapes": tapes.tapes.items,
        "columns": tapes.columns.items,
    }
    data = page_data(small_menu()) | written
    ask = f"(gpu) => [...engine.follow({first}, [8], gpu), ...engine.follow({second}, [8], gpu)]"
    assert run_script(data, [0, 2], ask) == [[4, 24, -6], [2, 24, -4]]


def test_one_recording_serves_groups_and_caches_of_every_format() -> None:
    """Neither the GPUs of a group nor the cache's format need recordings, or operations, anew."""
    data = page_data(small_menu())
    (model,) = data["models"]
    assert model["splits"][0] == [1, 2, 4, 8]
    assert model["kv_low"] == [False, False, True]
    kernel, execution = (
        data["choices"][name].index(data["start"][name]) for name in ("kernel", "execution")
    )
    for kernels in data["plans"][model["plans"][0]]["ways"]:
        recorded = [part for way in kernels[kernel][execution] for form in way for part in form[:3]]
        assert {len(data["recordings"][part]) for part in recorded} == {1}
    # What touches the cache has a timing of its own where the cache has few bits; nothing else.
    apart = {data["names"][name] for name, _, high, low, _ in data["calls"] if high != low}
    assert {"kv_write", "attention_context", "attention_combine"} <= apart
    assert not {"qkv_projection", "rotary", "mlp_up", "attention_all_reduce"} & apart


def test_a_whole_page_is_small_and_asks_for_nothing() -> None:
    """The default page, with every preset and GPU, can be mailed, and loads nothing."""
    text = whole_page()
    assert len(text) < 1_100_000
    assert f"{shipped_spreads().coverage:.0%} of measured steps" in text
    assert re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", text) == []
    assert re.findall(r"\b(?:fetch|XMLHttpRequest|WebSocket|import)\s*\(", text) == []
    assert text.count("</script>") == 2


def test_texts_of_a_scenario_cannot_become_markup(tmp_path: Path) -> None:
    """A title with tags in it stays a text, in the page's head and in its data."""
    hostile = "</script><img src=x onerror=alert(1)> & $title <!--"
    path = tmp_path / "hostile.toml"
    path.write_text(
        f"""schema_version = 1
id = "hostile"
title = '{hostile}'
description = "d"
question = '{hostile}'
sources = ["s"]
verdict = "gain"
verdict_reason = "r"
models = ["gpt2"]
gpus = ["l4"]
[workload]
samples = 4
""",
        encoding="utf-8",
    )
    offer = menu(load_scenario(path), models=["gpt2"], gpus=["l4"])
    text = page(offer)
    assert "<img" not in text
    assert text.count("</script>") == 2
    embedded = re.search(r'<script id="data" type="application/json">(.*?)</script>', text)
    assert embedded is not None
    scenario = json.loads(embedded.group(1))["scenario"]
    assert scenario["title"] == hostile
    # A file that does not say what its verdict rests on states it.
    assert scenario["expected"] == "gain (stated)"


def test_the_scenario_comes_first_and_the_page_opens_in_its_middle() -> None:
    """The first model and GPU are the scenario's; sizes start in the middle of its grid."""
    offer = menu(load_scenario("system-prompt"))
    assert offer.models[0].model.name == "llama-2-7b"
    assert offer.gpus[0].gpu.id == "a100-sxm-80gb"
    assert offer.start == {
        "model": "llama-2-7b",
        "gpu": "a100-sxm-80gb",
        "kv_heads": 32,
        "samples": 64,
        "context_tokens": 2048,
        "decoded_tokens": 512,
        "prompts": 1,
        "query_tokens": 1,
        "weight_dtype": "auto",
        "kv_dtype": "auto",
        "tensor_parallel": 1,
        "kernel": "flash",
        "execution": "graph",
        "kv_layout": "shared",
    }


def test_sliders_cover_the_scenario() -> None:
    """A grid beyond the usual ends moves the ends."""
    assert page_data(
        menu(load_scenario("generative-recommendation"), models=["qwen3-0.6b"], gpus=["l40s"])
    )["ranges"]["samples"] == (1, 5000)


def test_groups_that_cannot_split_a_model_are_not_offered() -> None:
    """qwen2.5-0.5b has 14 heads: two GPUs can split them, four and eight cannot."""
    offer = menu(load_scenario("code-sampling-8k"), models=["qwen2.5-0.5b"], gpus=["h100-sxm"])
    (model,) = page_data(offer)["models"]
    assert model["splits"][model["choices"].index(2)] == [1, 2]


def test_a_kernel_without_a_form_for_the_cache_is_not_offered() -> None:
    """A latent cache has no sdpa_math; the other kernels of the model are there."""
    offer = menu(load_scenario("mla-deepseek-v3"), models=["deepseek-v3"], gpus=["h100-sxm"])
    data = page_data(offer)
    start = data["choices"]["weight_dtype"].index(data["start"]["weight_dtype"])
    programs = data["plans"][data["models"][0]["plans"][0]]["ways"][start]
    kernels = data["choices"]["kernel"]
    runnable = [name for name, kernel in zip(kernels, programs, strict=True) if all(kernel)]
    assert runnable == ["ideal", "flash", "einsum"]


def test_bare_peaks_are_valid_json() -> None:
    """Constants of infinity, as peaks have, are said in a way that every JSON reader knows."""
    offer = menu(
        load_scenario("code-sampling-8k"), models=["gpt2"], gpus=["h100-sxm"], constants="peak"
    )
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', page(offer))
    assert data is not None

    def refuse(word: str) -> None:
        raise AssertionError(word)

    json.loads(data.group(1), parse_constant=refuse)


def test_only_latent_models_have_the_form_that_a_page_keeps(tmp_path: Path) -> None:
    """Other models of the menu run all the same."""
    path = tmp_path / "mixed.toml"
    path.write_text(MIXED, encoding="utf-8")
    offer = menu(load_scenario(path), models=["kimi-k2", "llama-3.1-8b"], gpus=["h100-sxm"])
    forms = {}
    for entry in offer.models:
        setup, _ = offer.asks(entry.model, "auto", "auto")
        [form] = latent_forms(entry.model, setup.under("bifurcated"))
        forms[entry.model.name] = form.latent_form
    assert forms == {"kimi-k2": "mixed", "llama-3.1-8b": "auto"}


def test_a_page_says_that_its_kernel_cannot_take_what_the_scenario_asks() -> None:
    """It starts with another kernel, or with one prompt; ``compare`` refuses the same."""
    scenario = load_scenario("code-sampling-8k")
    asked = narrowed(scenario, {"kernel": ["vllm-cascade"], "prompts": [1, 2]})
    offer = menu(asked, models=["llama-3.1-8b"], gpus=["l4"])
    (why,) = offer.skipped
    assert why.startswith("prompts = 2: kernel 'vllm-cascade' reads once what all prompts share")
    assert list(page_data(offer)["one_prompt"]) == ["vllm-cascade"]
    (why,) = menu(asked, models=["deepseek-v3"], gpus=["h200-sxm"]).skipped
    assert "shares no latent cache" in why
