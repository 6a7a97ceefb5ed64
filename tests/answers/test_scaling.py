"""Training runs become families, a law of them all, and size factors with intervals."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from builders import llama_2_7b

from simulator.answers.scaled import FAMILIES, caching_once, with_heads
from simulator.answers.scaling import fit_scaling_law, predicted_losses
from simulator.answers.size_factor import (
    fitted_factor,
    given_factor,
    paper_factor,
    pooled_factor,
    shipped_factors,
)
from simulator.errors import MeasurementError, ModelError, WorkloadError

# Parameters and heads, as models of these sizes have them.
MODELS = ((125e6, 12), (350e6, 16), (672e6, 20), (1.3e9, 24), (2.8e9, 32), (6.7e9, 32), (13e9, 40))
TRUE = {"multi-head": 1.0, "4 heads per KV head": 1.05, "multi-query": 1.10}


def write_runs(folder: Path, *, noise: float = 0.001, skip: tuple[str, ...] = ()) -> Path:
    """Write runs of a known law: L = 1.7 + 0.9 (N / F / 1e9)^-0.25."""
    generator = np.random.default_rng(0)
    lines = ["parameters,heads,kv_heads,loss"]
    for size, heads in MODELS:
        for name, kv_heads in zip(TRUE, (heads, heads // 4, 1), strict=True):
            loss = 1.7 + 0.9 * (size / TRUE[name] / 1e9) ** -0.25
            loss *= math.exp(noise * generator.standard_normal())
            lines.append(f"{size:.0f},{heads},{kv_heads},{loss:.5f}")
            if name in skip and size > 4e8:
                lines.pop()
    path = folder / "runs.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_the_truth_is_within_the_intervals(tmp_path: Path) -> None:
    """Factors, floor and exponent come out; the held-out largest models within a percent."""
    result = fit_scaling_law(write_runs(tmp_path))
    assert [law.family.name for law in result.laws] == list(TRUE)
    for law in result.laws:
        assert law.low <= TRUE[law.family.name] <= law.high
        assert (law.runs, law.sizes) == (7, 7)
    assert result.law.irreducible_loss == pytest.approx(1.7, abs=3 * result.law.stderr[0])
    assert result.held_out is not None
    assert [each.run.parameters for each in result.held_out] == [13e9] * 3
    assert max(abs(each.error) for each in result.held_out) < 0.01
    assert predicted_losses(result) == pytest.approx([run.loss for run in result.runs], rel=0.005)
    assert result.notes == ()


def test_runs_of_several_token_counts_have_a_joint_law(tmp_path: Path) -> None:
    """L = 1.7 + 0.9 (N / F)^-0.25 + 0.4 D^-0.3: every constant within its errors, F too.

    Where the size sets the tokens, they are no law of their own.
    """
    generator = np.random.default_rng(0)
    lines = ["parameters,heads,kv_heads,tokens,loss"]
    for size, heads in MODELS[::2]:
        for tokens in (5e9, 2e10, 8e10):
            for name, kv_heads in zip(TRUE, (heads, heads // 4, 1), strict=True):
                loss = 1.7 + 0.9 * (size / TRUE[name] / 1e9) ** -0.25
                loss += 0.4 * (tokens / 1e10) ** -0.3
                loss *= math.exp(0.001 * generator.standard_normal())
                lines.append(f"{size:.0f},{heads},{kv_heads},{tokens:.0f},{loss:.5f}")
    path = tmp_path / "joint.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    result = fit_scaling_law(path)
    law = result.law
    assert law.token_exponent == pytest.approx(0.3, abs=3 * law.stderr[-1])
    assert law.exponent == pytest.approx(0.25, abs=3 * law.stderr[2])
    assert all(each.low <= TRUE[each.family.name] <= each.high for each in result.laws)
    assert result.held_out is not None
    assert len(result.held_out) == 9
    assert max(abs(each.error) for each in result.held_out) < 0.01
    assert predicted_losses(result) == pytest.approx([run.loss for run in result.runs], rel=0.005)
    # Two numbers of tokens: the exponent is taken from elsewhere, and said to be.
    path.write_text("\n".join(line for line in lines if ",80000000000," not in line), "utf-8")
    two = fit_scaling_law(path)
    assert "Two numbers of tokens do not tell their exponent" in " ".join(two.notes)
    assert all(each.low <= TRUE[each.family.name] <= each.high for each in two.laws)
    follows = {
        size: tokens for (size, _), tokens in zip(MODELS[::2], (5e9, 2e10, 5e10, 2e11), strict=True)
    }
    kept = [
        line.replace(f",{line.split(',')[3]},", f",{follows[float(line.split(',')[0])]:.0f},")
        for line in lines[1:]
        if ",5000000000," in line
    ]
    path.write_text("\n".join([lines[0], *kept]), encoding="utf-8")
    with pytest.raises(MeasurementError, match="tokens that follow from the size"):
        fit_scaling_law(path)


def test_a_held_out_size_has_no_part_in_its_prediction(tmp_path: Path) -> None:
    """Worse losses of the largest models change their error, not their predicted loss."""
    path = write_runs(tmp_path)
    before = fit_scaling_law(path).held_out
    text = path.read_text(encoding="utf-8").splitlines()
    text[-3:] = [line[: line.rindex(",")] + ",4.0" for line in text[-3:]]
    path.write_text("\n".join(text), encoding="utf-8")
    after = fit_scaling_law(path).held_out
    assert before is not None
    assert after is not None
    foretold = [each.predicted for each in before]
    assert [each.predicted for each in after] == pytest.approx(foretold, rel=1e-6)
    assert all(each.error < -0.2 for each in after)


def test_a_family_with_too_few_sizes_is_left_out_and_named(tmp_path: Path) -> None:
    """Two sizes of multi-query are not fitted; a note says so."""
    path = write_runs(tmp_path, skip=("multi-query",))
    result = fit_scaling_law(path)
    assert [law.family.name for law in result.laws] == ["multi-head", "4 heads per KV head"]
    assert result.notes == ("Left out, too few sizes: multi-query: 2 of at least 3 sizes.",)


def test_without_the_reference_nothing_is_fitted(tmp_path: Path) -> None:
    """Too few multi-head models leave nothing to compare with."""
    path = write_runs(tmp_path, skip=("multi-head",))
    with pytest.raises(MeasurementError, match="multi-head: 2 of at least 3 sizes"):
        fit_scaling_law(path)


def test_three_sizes_of_one_family_are_not_enough(tmp_path: Path) -> None:
    """Three runs cannot tell three constants and how sure they are."""
    path = tmp_path / "few.csv"
    path.write_text("parameters,group_size,loss\n1e8,1,3\n1e9,1,2.6\n1e10,1,2.4\n", "utf-8")
    with pytest.raises(MeasurementError, match="4 runs are needed"):
        fit_scaling_law(path)


def test_a_run_far_off_is_named_by_its_line(tmp_path: Path) -> None:
    """A diverged run loses its weight, and its line is said."""
    path = write_runs(tmp_path)
    text = path.read_text(encoding="utf-8").splitlines()
    text[10] = text[10][: text[10].rindex(",")] + ",3.9"
    path.write_text("\n".join(text), encoding="utf-8")
    result = fit_scaling_law(path)
    assert result.notes == ("Far off the law, and therefore without weight in it: line 11.",)
    assert all(law.low <= TRUE[law.family.name] <= law.high for law in result.laws)


def test_fitted_factors_by_kv_heads(tmp_path: Path) -> None:
    """A family's own factor where there is one, in equal steps of ln F between two."""
    result = fit_scaling_law(write_runs(tmp_path))
    base = llama_2_7b()
    group, query = (math.log(law.size_factor) for law in result.laws[1:])
    eight = fitted_factor(result, base, with_heads(base, 8))
    assert (eight.origin, math.log(eight.value)) == ("fitted", pytest.approx(group))
    assert fitted_factor(result, base, with_heads(base, 32)).value == 1
    assert fitted_factor(result, base, with_heads(base, 1)).value == pytest.approx(math.exp(query))
    # 16 of 32 heads is half way from 32 to 8; from 8 to 1 are three halvings, two of them to 2.
    sixteen, two = (
        fitted_factor(result, base, with_heads(base, 16)),
        fitted_factor(result, base, with_heads(base, 2)),
    )
    assert (sixteen.origin, two.origin) == ("interpolated", "interpolated")
    assert math.log(sixteen.value) == pytest.approx(group / 2)
    assert math.log(two.value) == pytest.approx(group + (query - group) * 2 / 3)
    # From a model that shares already, the quotient of the two.
    shared = fitted_factor(result, base.with_kv_heads(8), with_heads(base.with_kv_heads(8), 1))
    assert math.log(shared.value) == pytest.approx(query - group)
    for factor in (eight, sixteen, two, shared):
        assert factor.low is not None
        assert factor.high is not None
        assert factor.low < factor.value < factor.high


def test_a_number_outside_the_families_is_refused(tmp_path: Path) -> None:
    """No law is drawn out to families that no run is of."""
    path = write_runs(tmp_path, skip=("multi-query",))
    result = fit_scaling_law(path)
    with pytest.raises(ModelError, match="give the size factor"):
        fitted_factor(result, llama_2_7b(), with_heads(llama_2_7b(), 1))


def test_the_paper_ends_and_what_is_assumed_between() -> None:
    """1.10 for multi-query of multi-head; between, each halving costs the same; marked so."""
    base = llama_2_7b()
    assert paper_factor(base, with_heads(base, 1)).value == pytest.approx(1.1)
    assert paper_factor(base, with_heads(base, 1)).origin == "paper"
    steps = [paper_factor(base, with_heads(base, g)) for g in (32, 16, 8, 4, 2, 1)]
    ratios = [after.value / before.value for before, after in pairwise(steps)]
    assert ratios == pytest.approx([1.1 ** (1 / 5)] * 5)
    assert {factor.origin for factor in steps[1:-1]} == {"assumed"}
    back = paper_factor(base.with_kv_heads(1), with_heads(base.with_kv_heads(1), 32))
    assert (back.value, back.origin) == (pytest.approx(1 / 1.1), "paper")
    assert (
        paper_factor(base.with_kv_heads(8), with_heads(base.with_kv_heads(8), 1)).origin
        == "assumed"
    )


@pytest.mark.parametrize("value", [0.0, -1.0, 0.1, 6.0, math.nan, math.inf])
def test_a_factor_that_cannot_be_is_refused(value: float) -> None:
    """A factor far from 1 is a typing error."""
    with pytest.raises(WorkloadError, match="size_factor"):
        given_factor(value)


def test_families_that_kv_heads_do_not_tell(tmp_path: Path) -> None:
    """A latent family by its name has a factor, comes last, and is no neighbour of KV heads."""
    path = write_runs(tmp_path, noise=0)
    lines = path.read_text(encoding="utf-8").splitlines()
    lines = [f"{lines[0]},family", *(f"{line}," for line in lines[1:])]
    for size, _ in MODELS:
        lines.append(f"{size:.0f},,,{1.7 + 0.9 * (size / 0.9 / 1e9) ** -0.25:.6f},MLA")
    path.write_text("\n".join(lines), encoding="utf-8")
    result = fit_scaling_law(path)
    assert [law.family.name for law in result.laws] == [*TRUE, "MLA"]
    assert result.laws[-1].size_factor == pytest.approx(0.9, rel=1e-3)
    assert fitted_factor(result, llama_2_7b(), with_heads(llama_2_7b(), 1)).value == pytest.approx(
        1.10, rel=1e-3
    )
    latent = FAMILIES["mla"](llama_2_7b())
    assert fitted_factor(result, llama_2_7b(), latent).value == pytest.approx(0.9, rel=1e-3)
    with pytest.raises(ModelError, match="no runs of GLA-2"):
        fitted_factor(result, llama_2_7b(), FAMILIES["gla"](llama_2_7b()))
    path = write_runs(tmp_path, skip=("multi-query",))
    path.write_text(
        "\n".join([*lines[:1], *(line for line in lines[1:] if ",1," not in line)]), "utf-8"
    )
    with pytest.raises(ModelError, match="give the size factor"):
        fitted_factor(fit_scaling_law(path), llama_2_7b(), with_heads(llama_2_7b(), 1))


def test_the_shipped_table_by_family_and_matching() -> None:
    """Multi-head is 1; a base that shares already divides; what is not there is named."""
    table, base = shipped_factors(), llama_2_7b()
    query = pooled_factor(table, base, with_heads(base, 1), "mlp")
    assert query.low is not None
    assert query.high is not None
    assert query.low < query.value < query.high
    assert query.value == pytest.approx(math.sqrt(query.low * query.high))
    assert "gla2025, shazeer2019" in query.source
    group = pooled_factor(table, base, with_heads(base, 8), "mlp")
    shared = pooled_factor(table, base.with_kv_heads(8), with_heads(base, 1), "mlp")
    assert shared.value == pytest.approx(query.value / group.value)
    assert shared.low is not None
    assert shared.low < query.low / group.value
    assert pooled_factor(table, base.with_kv_heads(8), base, "mlp").value == pytest.approx(
        1 / group.value
    )
    with pytest.raises(ModelError, match=r"YOCO .* give the size factor"):
        pooled_factor(table, base, caching_once(base), "mlp")
