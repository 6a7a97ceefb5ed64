"""Figures of scaling laws, equal quality and pass@k show the figures of their frames."""

import math
from pathlib import Path
from typing import Any

import pytest

import simulator
from simulator.answers.size_factor import shipped_factors
from simulator.answers.studies import fit_studies
from simulator.answers.study import Study
from simulator.inputs.hardware import load_hardware
from simulator.inputs.presets import load_model
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload
from simulator.views.plots.losses import scaling_figure, studies_figure
from simulator.views.plots.maps import crossover_figure
from simulator.views.plots.quality import quality_figure
from simulator.views.plots.registry import figure
from simulator.views.tradeoff import tradeoff_map_rows


def write_runs(path: Path) -> Path:
    """Write runs of two families by L = 1.5 + (N / F / 1e9)^-0.3, F = 1.2, one of them far off."""
    lines = ["parameters,group_size,loss"]
    for number, size in enumerate((1e8, 3e8, 1e9, 3e9, 1e10)):
        for group_size, factor in ((1, 1.0), (16, 1.2)):
            loss = 1.5 + (size / factor / 1e9) ** -0.3 + 0.001 * (-1) ** (number + group_size // 8)
            lines.append(f"{size:.0f},{group_size},{loss:.5f}")
    lines[6] = "1000000000,16,3.5"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def markers(figure: Any, axis: str) -> list[Any]:
    """Return the traces of points in a panel."""
    return [trace for trace in figure.data if trace.mode == "markers" and trace.xaxis == axis]


def test_a_law_with_its_runs(tmp_path: Path) -> None:
    """Every run is a point at its size and loss; the largest are hollow, the far one is a cross."""
    law = simulator.fit_scaling_law(write_runs(tmp_path / "runs.csv"))
    drawn = scaling_figure(law)
    points = {
        (x, y) for trace in markers(drawn, "x") for x, y in zip(trace.x, trace.y, strict=True)
    }
    assert points == {(run.parameters, run.loss) for run in law.runs}
    symbols = [symbol for trace in markers(drawn, "x") for symbol in trace.marker.symbol]
    assert symbols.count("x-thin") == 1
    assert sum(str(symbol).endswith("-open") for symbol in symbols) == 2
    assert drawn.layout.meta["finding"].startswith("16 heads per KV head: 1.199 times")


def test_a_run_far_off_does_not_squeeze_the_residuals(tmp_path: Path) -> None:
    """The residuals' axis is made for the others; the far run stands at its edge."""
    drawn = scaling_figure(simulator.fit_scaling_law(write_runs(tmp_path / "runs.csv")))
    low, high = drawn.layout.yaxis2.range
    residuals = [y for trace in markers(drawn, "x2") for y in trace.y]
    assert high < 1
    assert all(low <= y <= high for y in residuals)
    assert min(residuals) == pytest.approx(0.97 * low)


def test_the_residuals_have_room_for_their_title(tmp_path: Path) -> None:
    """Beside each other, the panels leave room for the right one's title and ticks."""
    drawn = scaling_figure(simulator.fit_scaling_law(write_runs(tmp_path / "runs.csv")))
    for form in ("wide", "medium"):
        ends = [drawn.layout.meta[form][f"xaxis{number}.domain"] for number in ("", "2")]
        assert ends[1][0] - ends[0][1] > 0.1


def test_the_map_shows_the_ratios_of_its_frame() -> None:
    """Three panels; each cell's text is the ratio of the two steps, nothing where neither fits."""
    result = simulator.tradeoff("llama-2-7b", kv_layout="copies")
    drawn = crossover_figure(result)
    panels = [trace for trace in drawn.data if trace.type == "heatmap"]
    pairings = [("standard", "standard"), ("bifurcated", "bifurcated"), ("bifurcated", "standard")]
    rows = {
        (r["base_attention"], r["other_attention"], r["context_tokens"], r["samples"]): r
        for r in tradeoff_map_rows(result)
    }
    for pairing, panel in zip(pairings, panels, strict=True):
        for i, exponent in enumerate(panel.y):
            for j, samples in enumerate(panel.x):
                row = rows[(*pairing, 2**exponent, 2**samples)]
                fits = row["base_memory_share"] <= 1 or row["other_memory_share"] <= 1
                assert panel.customdata[i][j] == row["speedup"]
                assert math.isfinite(panel.z[i][j]) == fits
                assert (panel.text[i][j] != "") == fits
    # A GPU of 80 GB does not hold 1024 copies of 128K tokens of either model.
    assert math.isnan(panels[0].z[-1][-1])


def test_the_registered_figure_is_the_command_s() -> None:
    """``plot equal-quality`` draws the same cells as ``tradeoff --figure``."""
    study = Study(
        models=(load_model("llama-2-7b"),),
        gpus=(load_hardware("h100-sxm"),),
        setup=Setup(),
        workload=Workload(),
    )
    registered, own = (
        figure("equal-quality", study),
        crossover_figure(simulator.tradeoff("llama-2-7b")),
    )
    assert registered.layout.meta["finding"] == own.layout.meta["finding"]
    assert registered.data[0].text == own.data[0].text


def test_the_title_tells_what_the_target_buys() -> None:
    """The exact samples of the answer, and their pass@k."""
    result = simulator.quality("llama-3.1-8b", success_rate=0.05, target_step_ms=15)
    point = result.best["standard"].point
    assert point is not None
    finding = quality_figure(result).layout.meta["finding"]
    assert f"A 15 ms step buys pass@{point.samples} of {point.pass_at_k:.1%} with" in finding
    assert "of over 99.9% with bifurcated" in finding


def test_points_beyond_memory_are_pale_and_useless_ones_left_out() -> None:
    """Beyond memory the line is pale, and ends where more samples bring nothing more."""
    result = simulator.quality("llama-3.1-8b", success_rate=0.02, kv_layout="copies")
    drawn = quality_figure(result)
    standard = [trace for trace in drawn.data if trace.name == "standard"]
    assert [trace.opacity for trace in standard] == [1.0, pytest.approx(0.3)]
    fits = {point.samples for point in result.points["standard"] if point.fits}
    drawn_samples = [
        [int(said.partition("<br>")[2].split()[0].replace(",", "")) for said in trace.hovertext]
        for trace in standard
    ]
    assert set(drawn_samples[0]) == fits
    last = drawn_samples[1][-1]
    assert last < 1024
    assert next(p.pass_at_k for p in result.points["standard"] if p.samples == last) > 0.998


def test_the_error_of_counts_is_a_band(tmp_path: Path) -> None:
    """A band reaches one standard error to either side, within 0 and 1."""
    path = tmp_path / "counts.csv"
    path.write_text("problem,samples,correct\na,64,2\nb,64,50\nc,64,0\n", encoding="utf-8")
    result = simulator.quality("llama-3.1-8b", problem_counts=path, output_tokens=32)
    bands = [trace for trace in quality_figure(result).data if trace.fill == "toself"]
    points = [point for point in result.points["standard"] if point.fits]
    upper = bands[0].y[: len(points)]
    assert upper == pytest.approx(
        [min(1.0, point.pass_at_k + (point.stderr or 0)) for point in points]
    )


def test_families_stand_at_their_loss_cache_and_step() -> None:
    """Points and intervals are the shipped table's; steps are those of models of equal size."""
    study = Study(
        models=(load_model("llama-2-7b"),),
        gpus=(load_hardware("h100-sxm"),),
        setup=Setup(),
        workload=Workload(),
    )
    drawn = figure("loss-kv", study)
    table = shipped_factors().factors
    mlp = next(trace for trace in drawn.data if trace.name == "freed to the MLP")
    query = next(f for f in table if (f.family, f.matched_by) == ("multi-query", "mlp"))
    place = mlp.text.index("MQA")
    assert mlp.x[place] == query.kv_share
    assert mlp.y[place] == pytest.approx(100 * query.loss_change)
    assert mlp.y[place] + mlp.error_y.array[place] == pytest.approx(100 * query.loss_high)
    assert mlp.y[place] - mlp.error_y.arrayminus[place] == pytest.approx(100 * query.loss_low)
    # Runs do not tell the latent cache; Llama's would be 576 of 8192 values.
    assert mlp.x[mlp.text.index("MLA")] == 576 / 8192
    for trace in drawn.data[-2:]:
        assert trace.text == ("MHA", "MQA", "GQA", "MLA", "GLA-2", "MQA-CLA2")
        asked = simulator.estimate("llama-2-7b", "h100-sxm", attention=trace.name)
        assert trace.x[0] == pytest.approx(asked.step_s * 1e3)
        assert trace.y[0] == 0
        other = simulator.tradeoff(
            "llama-2-7b", target_kv_heads=[1], size_factors=[1.0], scale_by="mlp"
        ).others[0]
        step = other.variants[trace.name].result.step_s
        assert trace.x[1] == pytest.approx(step * 1e3)
    # TPA and others have no place along KV bytes: they are listed.
    note = " ".join(drawn.layout.meta["notes"]) if "notes" in drawn.layout.meta else ""
    note += " ".join(str(text.text) for text in drawn.layout.annotations)
    assert "KV bytes not told: GLAq-2 -1.2%" in note


def test_families_of_own_runs(tmp_path: Path) -> None:
    """``scaling --figure`` of several studies draws one panel, with the factors found."""
    path = tmp_path / "runs.csv"
    lines = ["study,family,parameters,loss,matched_by,heads,kv_heads"]
    for paper in ("one", "two"):
        for number, size in enumerate((2e8, 5e8, 1e9, 2e9)):
            for family, factor, kv_heads in (("MHA", 1.0, 16), ("MQA", 1.1, 1)):
                loss = (
                    3 * (size / factor / 1e9) ** -0.06 * (1 + 1e-3 * (-1) ** number * kv_heads / 16)
                )
                lines.append(f"{paper},{family},{size:.0f},{loss:.6f},nothing,16,{kv_heads}")
    path.write_text("\n".join(lines), encoding="utf-8")
    result = fit_studies(path)
    drawn = studies_figure(result)
    named = next(trace for trace in drawn.data if trace.name == "nothing put back")
    assert (named.x, named.text) == ((pytest.approx(1 / 16),), ("MQA",))
    assert named.y[0] == pytest.approx(100 * (1.1**0.06 - 1), abs=0.1)
    assert drawn.layout.meta["finding"].startswith(
        "Multi-query's loss at equal size: +0.6% nothing put back"
    )
