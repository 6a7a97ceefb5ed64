"""The numbers in figures are those of the answers, asked one by one."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plot_studies import study

from simulator import api
from simulator.answers.capacity import Capacity
from simulator.answers.frames import by_gpu
from simulator.answers.study import Study, study_scenario
from simulator.inputs.scenario import load_scenario
from simulator.units import GIB
from simulator.views.plots import palette, texts
from simulator.views.plots.fleet import frontier
from simulator.views.plots.registry import FIGURES, figure

GAIN = "gain, and standard ends"


@pytest.fixture(scope="module")
def question() -> Study:
    """Llama-2-7B, 32 samples of an 8K context on an H100: bifurcated gains, standard ends."""
    return study(GAIN)


def points(made: Any, name: str, **place: str) -> dict[float, float]:
    """Return the points of the traces of a name or legend group, strong and pale, x to y."""
    found: dict[float, float] = {}
    for trace in made.data:
        if trace.name == name and all(getattr(trace, key) == value for key, value in place.items()):
            found |= dict(zip(trace.x or (), trace.y or (), strict=True))
    return {x: y for x, y in found.items() if x is not None}


def compare(question: Study, **changes: Any) -> Any:
    """Compare at the question's point, with changes."""
    settings = {**question.setup.as_dict(), **question.workload.as_dict(), **changes}
    return api.compare(question.model, question.gpu, **settings)


@pytest.mark.parametrize("samples", [1, 14, 64, 1024])
def test_latency_over_samples_is_that_of_compare(question: Study, samples: int) -> None:
    """Every point of the lines is the step that ``compare`` gives."""
    made = figure("latency-samples", question)
    answer = compare(question, samples=samples)
    assert points(made, "bifurcated")[samples] == pytest.approx(answer.bifurcated.step_s * 1e3)
    assert points(made, "standard")[samples] == pytest.approx(answer.standard.step_s * 1e3)


def test_latency_over_the_context_is_that_of_compare(question: Study) -> None:
    """The same along the context."""
    made = figure("latency-context", question)
    answer = compare(question, context_tokens=2048)
    assert points(made, "bifurcated")[2048] == pytest.approx(answer.bifurcated.step_s * 1e3)
    assert points(made, "standard")[2048] == pytest.approx(answer.standard.step_s * 1e3)


def test_every_line_of_latency_has_its_interval_shaded(question: Study) -> None:
    """From the lower to the upper end, as far as it fits."""
    made = figure("latency-samples", question)
    answer = compare(question, samples=8)
    for variant in ("standard", "bifurcated"):
        item = getattr(answer, variant)
        colour = palette.pale(palette.COLOURS[variant])
        (shade,) = [trace for trace in made.data if trace.fillcolor == colour]
        ends = [y for x, y in zip(shade.x, shade.y, strict=True) if x == 8]
        expected = [item.step_high_s * 1e3, item.step_low_s * 1e3]
        assert ends == pytest.approx(expected)


def test_the_cross_is_where_memory_ends(question: Study) -> None:
    """The cross lies at the most samples that fit; strong lines end there, pale ones go on."""
    made = figure("latency-samples", question)
    most = Capacity(question.estimate("standard")).most_samples
    crosses = [
        trace for trace in made.data if trace.marker.symbol == "x-thin" and trace.x != (None,)
    ]
    assert [trace.x[0] for trace in crosses] == [most] == [14]
    strong = [t for t in made.data if t.name == "standard" and t.opacity == 1]
    assert max(strong[0].x) == most
    pale = [t for t in made.data if t.name == "standard" and t.opacity == palette.UNFIT_OPACITY]
    assert pale[0].x[:2] == (14, 15)
    assert "15 samples" in made.layout.meta["finding"]


def test_markers_say_what_binds() -> None:
    """The marker of a point is that of the roof which ``compare`` says binds it."""
    asked = study("no gain, one stored context")
    made = figure("latency-samples", asked)
    for name in ("standard", "bifurcated"):
        trace = next(t for t in made.data if t.name == name and t.mode == "lines+markers")
        for samples, symbol in zip(trace.x, trace.marker.symbol, strict=True):
            answer = compare(asked, samples=int(samples))
            assert symbol == palette.BOUND_SYMBOLS[getattr(answer, name).bound]


def test_the_bars_sum_to_the_step_and_its_bytes(question: Study) -> None:
    """Time of the parts is the step's, bytes of the parts are the totals'."""
    made = figure("operations", question)
    for panel, expected in (
        ("x", {name: question.estimate(name).step_s * 1e3 for name in ("standard", "bifurcated")}),
        (
            "x2",
            {
                name: (totals.bytes_read + totals.bytes_written) / 1e9
                for name in ("standard", "bifurcated")
                for totals in [question.estimate(name).totals]
            },
        ),
    ):
        bars = [trace for trace in made.data if (trace.xaxis or "x") == panel]
        rows = [sum(bar.x[row] for bar in bars) for row in range(2)]
        assert rows[0] == pytest.approx(expected["bifurcated"])
        assert rows[1] == pytest.approx(expected["standard"])


def test_bars_of_terabytes_are_named_as_such(question: Study) -> None:
    """4,096 copies of 1M tokens are 563 TB, which no one reads as 5.63e+05 GB."""
    huge = question.workload.but(samples=4096, context_tokens=2**20)
    made = figure("operations", replace(question, workload=huge))
    texts = " ".join(str(item.text) for item in made.layout.annotations)
    assert " TB, does not fit" in texts or " PB, does not fit" in texts
    assert "e+" not in texts


def test_a_host_that_is_waited_for_is_a_part_of_the_step() -> None:
    """Eager execution is bound by the host: the bars still sum to the step."""
    gain = study(GAIN)
    setup, work = gain.setup.but(execution="eager"), gain.workload.but(samples=1)
    eager = replace(gain, setup=setup, workload=work, samples=(), context_tokens=())
    made = figure("operations", eager)
    waiting = [trace for trace in made.data if trace.name == "waiting for host"]
    assert waiting[0].x[0] > 0
    rows = sum(trace.x[0] for trace in made.data if (trace.xaxis or "x") == "x")
    assert rows == pytest.approx(eager.estimate("bifurcated").step_s * 1e3)


def test_no_operation_is_above_its_published_roof(question: Study) -> None:
    """Every point of the roofline lies under both roofs of its format."""
    made = figure("roofline", question)
    roof = next(trace for trace in made.data if str(trace.name).startswith("published"))
    (x0, y0), (_, peak) = zip(roof.x[:2], roof.y[:2], strict=True)
    bandwidth = y0 / x0
    checked = 0
    for trace in made.data:
        if trace.mode and trace.mode.startswith("markers"):
            for x, y in zip(trace.x, trace.y, strict=True):
                # Operands and results that stay in L2 are no traffic: 5 % for them.
                assert y <= min(peak, bandwidth * x) * 1.05
                checked += 1
    assert checked > 5


def test_a_cell_of_the_map_is_the_speedup_of_compare(question: Study) -> None:
    """Cells, in powers of two, are the speed-ups of the questions they stand for."""
    made = figure("speedup-map", question)
    cells = next(trace for trace in made.data if trace.type == "heatmap")
    at = {(x, y): (i, j) for i, y in enumerate(cells.y) for j, x in enumerate(cells.x)}
    for samples, tokens in ((1, 512), (32, 8192), (256, 2048)):
        i, j = at[math.log2(samples), math.log2(tokens)]
        answer = compare(question, samples=samples, context_tokens=tokens)
        assert cells.customdata[i][j] == pytest.approx(answer.speedup)
        assert cells.z[i][j] == pytest.approx(math.log2(answer.speedup))


def test_cells_that_fit_with_neither_are_empty() -> None:
    """DeepSeek-V3 fits no single H100: no cell has a colour or a number."""
    cells = figure("speedup-map", study("fits nowhere, latent cache")).data[0]
    assert {value for row in cells.text for value in row} == {""}
    assert all(math.isnan(value) for row in cells.z for value in row)


def test_the_kv_io_ratio_is_that_of_compare(question: Study) -> None:
    """Points of the ratio figure are ratio and speed-up of ``compare``."""
    made = figure("kv-io", question)
    line = next(trace for trace in made.data if trace.name == "8K-token context")
    (where,) = (at for at, said in enumerate(line.hovertext) if said.startswith("16 samples"))
    answer = compare(question, samples=16)
    assert line.x[where] == pytest.approx(answer.kv_io_ratio)
    assert line.y[where] == pytest.approx(answer.speedup)
    held = [compare(question, samples=2**power).standard.memory.fits for power in range(11)]
    assert not all(held)
    assert list(line.marker.symbol) == ["circle" if fits else "circle-open" for fits in held]


def test_memory_is_that_of_compare_and_its_end_that_of_capacity(question: Study) -> None:
    """Lines of memory are the answers' totals, and the horizontal line is what may be used."""
    made = figure("memory", question)
    answer = compare(question, samples=8)
    standard = float(answer.standard.memory.total_bytes) / GIB
    assert points(made, "standard")[8] == pytest.approx(standard)
    usable = next(trace for trace in made.data if "usable" in str(trace.name))
    assert usable.y[0] == pytest.approx(float(answer.standard.memory.capacity_bytes) / GIB)


def test_borders_run_between_cells_and_cross_no_number(question: Study) -> None:
    """Lines of a map lie half a step beside its cells' middles, where the numbers are."""
    made = figure("speedup-map", question)
    cells = next(trace for trace in made.data if trace.type == "heatmap")
    lines = [trace for trace in made.data if trace.type == "scatter" and trace.mode == "lines"]
    assert {trace.name for trace in lines} >= {"break-even"}
    for trace in lines:
        ends = [(x, y) for x, y in zip(trace.x, trace.y, strict=True) if x is not None]
        assert all(x not in cells.x and y not in cells.y for x, y in ends)


def test_another_model_is_drawn_in_its_own_formats() -> None:
    """A bf16 model beside an fp16 one is not computed in fp16, as it would not be run."""
    frame = by_gpu(study_scenario(load_scenario("code-sampling-8k")))
    frame = frame[frame["gpu"] == "h100-sxm"]
    point = frame[(frame["model"] == "mistral-7b-v0.2") & frame["asked"]]
    drawn = point.set_index("variant")["step_ms"]["bifurcated"]
    sizes = {"samples": 32, "context_tokens": 8192, "attention": "bifurcated"}
    own = api.estimate("mistral-7b-v0.2", "h100-sxm", **sizes, weight_dtype="auto")
    assert drawn == pytest.approx(1e3 * own.step_s, rel=1e-12)
    assert str(own.setup.weights) == "bf16"


def test_costs_are_those_of_plan(question: Study) -> None:
    """A million tokens cost on each GPU what ``plan`` says."""
    made = figure("cost", question)
    settings = {**question.setup.as_dict(), **question.workload.as_dict(), "tensor_parallel": 1}
    del settings["attention"]  # of both
    answer = api.plan(question.model, list(question.gpus), tensor_parallel_sizes=[1], **settings)
    labels = dict(zip(made.layout.yaxis.tickvals, made.layout.yaxis.ticktext, strict=True))
    drawn = {
        (labels[y], str(trace.name).partition(",")[0]): x
        for trace in made.data
        if trace.mode == "markers"
        for x, y in zip(trace.x, trace.y, strict=True)
    }
    expected = {
        (option.result.gpu.id, option.attention): option.usd_per_million_tokens
        for option in answer.options
        if option.result.memory.fits
    }
    assert len(expected) < len(answer.options)  # what does not fit has no cost
    assert drawn == pytest.approx(expected)


def test_no_price_is_no_error() -> None:
    """Without any price the cost figure says so."""
    unpriced = [gpu.but(price_usd_per_hour=None) for gpu in study(GAIN).gpus]
    gain = study(GAIN)
    question = Study(
        models=gain.models, gpus=tuple(unpriced), setup=gain.setup, workload=gain.workload
    )
    assert "price" in figure("cost", question).layout.meta["finding"]


def test_a_generation_begins_and_ends_as_generate_does(question: Study) -> None:
    """First and last point are the shortest and longest step of ``generate``, the gain its own."""
    question = replace(question, workload=question.workload.but(samples=8), output_tokens=2048)
    made = figure("generation", question)
    settings = {
        **question.setup.as_dict(),
        **question.workload.as_dict(),
        "output_tokens": question.output_tokens,
    }
    times = {
        kind: api.generate(question.model, question.gpu, **{**settings, "attention": kind}).time
        for kind in ("standard", "bifurcated")
    }
    line = points(made, "bifurcated")
    assert line[1] == pytest.approx(times["bifurcated"].first_step_s * 1e3)
    last_s = times["bifurcated"].last_step_s
    assert line[question.output_tokens - 1] == pytest.approx(last_s * 1e3)
    gain = times["standard"].decode_s / times["bifurcated"].decode_s
    title = made.layout.title.text.replace("<br>", " ")
    assert f"{texts.faster(gain)} over all steps" in title


def test_panels_of_kv_heads_are_the_what_ifs_of_compare(question: Study) -> None:
    """A panel is the model with so many KV heads and everything else unchanged."""
    made = figure("kv-heads", question)
    panel = {
        "multi-head, 32 KV heads": 32,
        "multi-group, 8 KV heads": 8,
        "multi-query, 1 KV head": 1,
    }
    names = [note.text for note in made.layout.annotations[:-1]]
    assert names == [f"<b>{name}</b>" for name in panel]
    for number, count in enumerate(panel.values()):
        axis = "x" if number == 0 else f"x{number + 1}"
        answer = api.compare(
            question.model,
            question.gpu,
            kv_heads=count,
            **question.setup.as_dict(),
            **question.workload.as_dict(),
        )
        line = points(made, "bifurcated", xaxis=axis)
        assert line[32] == pytest.approx(answer.bifurcated.step_s * 1e3)


@given(
    st.lists(
        st.tuples(st.integers(1, 9).map(float), st.integers(1, 9).map(float)),
        min_size=1,
        max_size=12,
    )
)
def test_the_frontier_is_what_nothing_beats(cloud: list[tuple[float, float]]) -> None:
    """A point is on the frontier exactly if no other is at least as good in both."""
    frame = pd.DataFrame(cloud, columns=["step_ms", "tokens_per_s_per_gpu"])
    edge = set(frontier(frame).itertuples(index=False, name=None))
    beaten = {
        ours
        for ours, theirs in itertools.product(cloud, cloud)
        if theirs != ours and theirs[0] <= ours[0] and theirs[1] >= ours[1]
    }
    assert edge == set(cloud) - beaten


@pytest.mark.parametrize("name", ["speedup-map", "kv-io", "kv-heads", "latency-kernels"])
def test_no_finding_names_a_gain_over_what_does_not_fit(question: Study, name: str) -> None:
    """At 256 copies of 32K only bifurcated attention fits: its ratio to them is no gain."""
    work = question.workload.but(samples=256, context_tokens=2**15)
    alone = replace(question, workload=work, samples=(), context_tokens=())
    assert not compare(alone).both_fit
    said = figure(name, alone).layout.meta["finding"]
    assert texts.times(compare(alone).speedup) not in said


def test_no_context_and_no_own_tokens_are_drawn_too(question: Study) -> None:
    """Sizes of 0 have no place on a logarithmic axis; every figure is drawn without them."""
    work = question.workload.but(context_tokens=0, decoded_tokens=0)
    nothing = Study(
        models=question.models[:1], gpus=question.gpus, setup=question.setup, workload=work
    )
    for name in FIGURES:
        assert figure(name, nothing).layout.meta["finding"]


def test_the_constants_asked_for_reach_the_footer(question: Study) -> None:
    """With published peaks the footer says that it is a bound."""
    bound = Study(
        models=question.models,
        gpus=question.gpus,
        setup=question.setup.but(constants="peak"),
        workload=question.workload,
    )
    made = figure("latency-samples", bound)
    assert "a bound, not a prediction" in made.layout.annotations[-1].text


def test_a_target_is_a_line_of_its_own(question: Study) -> None:
    """A scenario's longest acceptable step is drawn where latency is; without one there is none."""
    made = figure("latency-samples", question)
    (line,) = [trace for trace in made.data if "target" in str(trace.name)]
    assert set(line.y) == {25.0}
    without = replace(question, target_step_s=None)
    names = [str(trace.name) for trace in figure("latency-context", without).data]
    assert not any("target" in name for name in names)


def test_the_question_is_marked_on_the_map(question: Study) -> None:
    """A ring lies around the point that is asked about."""
    made = figure("speedup-map", question)
    (ring,) = [trace for trace in made.data if trace.name == "the question"]
    assert (ring.x[0], ring.y[0]) == (math.log2(32), math.log2(8192))


def test_a_single_step_is_seen() -> None:
    """A generation of one step has points, where a line would be nothing."""
    made = figure("generation", study("a single point, experts"))
    drawn = [trace for trace in made.data if trace.x != (None,)]
    assert drawn
    assert all("markers" in trace.mode for trace in drawn)
