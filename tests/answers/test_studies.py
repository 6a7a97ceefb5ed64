"""Runs of many studies: the factors that made them come out within their stated errors."""

import math
from pathlib import Path

import numpy as np
import pytest

from simulator.answers.scaling import fit_scaling_law
from simulator.answers.studies import Studies, fit_studies
from simulator.errors import MeasurementError

# Size factors by family and by where the freed parameters went.
TRUE = {
    ("MQA", "FFN width"): 1.03,
    ("MQA", "nothing"): 1.10,
    ("MLA", "FFN width"): 0.90,
    ("MLA", "nothing"): 0.92,
}
# By paper: its exponent, its sizes, and the loss of 1e9 parameters after 1e10 tokens.
PAPERS = {
    "one": (0.070, (2e8, 5e8, 1e9, 2e9), 2.6),
    "two": (0.055, (3e8, 8e8, 2e9), 2.9),
    "three": (0.062, (6e8,), 3.3),
}
# A model whose smaller cache gives its parameters to nothing is smaller by this.
UNMATCHED = {"MQA": 0.93, "MLA": 0.99, "MHA": 1.0}
HEADER = "study,family,parameters,tokens,loss,matched_by,metric,heads,kv_heads"
MATCHINGS = {"FFN width": "mlp", "nothing": "nothing"}


def write(
    folder: Path,
    *,
    seed: int = 0,
    noise: float = 0.001,
    between: float = 0.0,
    papers: dict[str, tuple[float, tuple[float, ...], float]] = PAPERS,
) -> Path:
    """Write L = L0 (N / F / 1e9)^-beta (tokens / 1e10)^-0.05: smaller models see more tokens."""
    generator = np.random.default_rng(seed)
    lines = [HEADER]
    for paper, (exponent, sizes, level) in papers.items():
        own = {key: math.exp(between * generator.standard_normal()) for key in TRUE}
        for matched in MATCHINGS:
            for tokens in (1e10, 3e10):
                for size in sizes:
                    for family in ("MHA", "MQA", "MLA"):
                        factor = TRUE.get((family, matched), 1.0) * own.get((family, matched), 1.0)
                        actual = size * (UNMATCHED[family] if matched == "nothing" else 1.0)
                        loss = level * (actual / factor / 1e9) ** -exponent
                        loss *= (tokens / 1e10) ** -0.05
                        loss *= math.exp(noise * generator.standard_normal())
                        kv_heads = {"MHA": 16, "MQA": 1, "MLA": ""}[family]
                        study = f"{paper}-{tokens:.0e}-{matched.split()[0]}"
                        lines.append(
                            f"{study},{family},{actual:.0f},{tokens:.0f},{loss:.6f},"
                            f"{matched},nats,16,{kv_heads}"
                        )
    path = folder / f"runs-{seed}.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def surprises(result: Studies) -> list[float]:
    """Return how many half intervals each factor is from the truth."""
    truth = {
        ({"MQA": "multi-query"}.get(name, name), MATCHINGS[matched]): value
        for (name, matched), value in TRUE.items()
    }
    return [
        abs(math.log(found.size_factor / truth[found.family, found.matched_by]))
        / (math.log(found.high / found.low) / 2)
        for found in result.factors
    ]


def test_exact_runs_give_the_exact_factors(tmp_path: Path) -> None:
    """Without noise every factor and exponent comes out, whatever tokens and matching do."""
    result = fit_studies(write(tmp_path, noise=0))
    assert [(each.paper, each.own) for each in result.exponents] == [
        ("one", True),
        ("two", True),
        ("three", False),
    ]
    assert [each.value for each in result.exponents[:2]] == pytest.approx([0.07, 0.055], rel=1e-3)
    assert len(result.factors) == 4
    for found in result.factors:
        name = {"multi-query": "MQA"}.get(found.family, found.family)
        matched = {"mlp": "FFN width"}.get(found.matched_by, found.matched_by)
        # Paper three takes the exponent of the others, so that its own is not exact.
        assert found.size_factor == pytest.approx(TRUE[name, matched], rel=1e-3)
        assert tuple(found.papers) == ("one", "two", "three")


def test_tokens_have_an_exponent_where_sizes_meet(tmp_path: Path) -> None:
    """It is 0.05 in every paper, and within its errors when runs scatter.

    Papers whose larger models see more tokens have none, and the levels of their sets say so.
    """
    exact = fit_studies(write(tmp_path, noise=0))
    assert [each.of_tokens for each in exact.exponents] == pytest.approx([0.05] * 3, rel=1e-3)
    far = []
    for seed in range(40):
        for each in fit_studies(write(tmp_path, seed=seed)).exponents:
            assert each.of_tokens is not None
            assert each.of_tokens_stderr is not None
            far.append(abs(each.of_tokens - 0.05) / each.of_tokens_stderr)
    # Two standard errors hold 93 % by Student's t of these papers, 112 of 120 give or take 2.8.
    assert sum(each <= 2 for each in far) >= 104
    header, *lines = write(tmp_path, noise=0).read_text(encoding="utf-8").splitlines()
    kept = []
    for line in lines:
        study, _, size, tokens, *_ = line.split(",")
        if study.startswith("two") and (float(size) > 5e8) != (float(tokens) > 2e10):
            continue
        # Tokens of paper three are not known.
        kept.append(line.replace(f",{tokens},", ",0,") if study.startswith("three") else line)
    path = tmp_path / "follow.csv"
    path.write_text("\n".join([header, *kept]) + "\n", encoding="utf-8")
    follow = fit_studies(path)
    two = next(each for each in follow.exponents if each.paper == "two")
    assert (two.own, two.of_tokens) == (False, None)
    assert follow.exponents[2].of_tokens is None
    assert "levels of their own" in " ".join(follow.notes)


def test_the_largest_size_is_foretold_from_the_smaller_ones(tmp_path: Path) -> None:
    """Exactly without noise; a worse loss of a largest model changes its error alone."""
    path = write(tmp_path, noise=0)
    before = fit_studies(path).held_out
    # Papers one and two have three sizes or more: 3 families, two token counts, two matchings.
    assert len(before) == 2 * 3 * 2 * 2
    assert {each.run.parameters for each in before if each.run.matched_by == "mlp"} == {2e9}
    assert max(abs(each.error) for each in before) < 1e-5
    lines = path.read_text(encoding="utf-8").splitlines()
    number = before[0].run.line - 1
    cells = lines[number].split(",")
    cells[4] = str(1.1 * float(cells[4]))
    lines[number] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    after = fit_studies(path).held_out
    assert [each.predicted for each in after] == pytest.approx([each.predicted for each in before])
    assert after[0].error == pytest.approx(1 / 1.1 - 1, abs=1e-5)


def test_the_intervals_hold_the_truth_as_often_as_they_say(tmp_path: Path) -> None:
    """Of 40 data sets, 95 % intervals hold each of 4 factors in 144 or more of 160."""
    found = [surprises(fit_studies(write(tmp_path, seed=seed))) for seed in range(40)]
    inside = np.array(found) <= 1
    assert 144 <= inside.sum() < 160, inside.sum(axis=0)


def test_papers_that_differ_widen_the_intervals(tmp_path: Path) -> None:
    """Factors of six papers scatter by 8 %: that is found, and the truth stays inside."""
    six = {f"p{n}": (0.06 + 0.004 * n, (3e8, 8e8, 2e9), 2.5) for n in range(6)}
    results = [
        fit_studies(write(tmp_path, seed=seed, noise=0.0005, between=0.08, papers=six))
        for seed in range(15)
    ]
    assert np.median([result.between for result in results]) == pytest.approx(0.08, rel=0.15)
    assert min(result.inconsistency for result in results) > 0.8
    inside = np.array([surprises(result) for result in results]) <= 1
    assert inside.sum() >= 52, inside.sum(axis=0)
    # A paper left out is foretold by the others as often as the interval says.
    left = [each.inside for result in results for each in result.left_out]
    assert len(left) == 15 * 6 * 4
    assert np.mean(left) == pytest.approx(0.95, abs=0.035)


def test_loss_at_equal_size_and_kv_share(tmp_path: Path) -> None:
    """ln of the loss changes by beta ln F; the cache of one of 16 KV heads is a sixteenth."""
    only = {"one": PAPERS["one"]}
    result = fit_studies(write(tmp_path, noise=0, papers=only))
    query = next(f for f in result.factors if (f.family, f.matched_by) == ("multi-query", "mlp"))
    assert query.loss_change == pytest.approx(1.03**0.07 - 1, rel=1e-3)
    assert query.kv_share == pytest.approx(1 / 16)
    latent = next(f for f in result.factors if f.family == "MLA")
    assert latent.kv_share is None
    assert result.notes == (
        "No family is in two papers: intervals hold no differences between papers.",
    )


def test_mixed_runs_are_not_one_law(tmp_path: Path) -> None:
    """The law of a single set refuses them, and says what compares them."""
    with pytest.raises(MeasurementError, match=r"not one law.*fit_studies\(\)"):
        fit_scaling_law(write(tmp_path))


def test_sizes_of_different_tokens_have_no_exponent(tmp_path: Path) -> None:
    """Three sizes, each trained on its own number of tokens, tell no exponent."""
    lines = ["family,parameters,tokens,loss"]
    for size in (1, 2, 4):
        lines += [f"MHA,{size}e9,{size}e10,{4 - size}", f"MQA,{size}e9,{size}e10,{4.1 - size}"]
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(MeasurementError, match="leave out the column tokens"):
        fit_studies(path)


def test_a_head_width_that_all_share_is_no_part_of_the_name(tmp_path: Path) -> None:
    """H128-MQA beside H128-MHA is multi-query; H64-MQA is another family, joined by a set."""
    path = write(tmp_path, papers={"one": PAPERS["one"]})
    more = [
        "",
        *(
            f"own,{name},1e9,1e10,{loss},nothing,nats,,"
            for name, loss in (
                ("H128-MHA", 2.50),
                ("H128-GQA4", 2.51),
                ("H128-MQA", 2.52),
                ("H64-MQA", 2.55),
            )
        ),
    ]
    more += [
        f"own-tuned,{name},1e9,1e10,{loss},nothing,nats,,"
        for name, loss in (("H128-MQA", 2.42), ("H64-MQA", 2.45), ("H64-MQA-CLA2", 2.46))
    ]
    more += ["alone,MLA,1e9,1e10,2.4,nothing,nats,,"]
    path.write_text(path.read_text(encoding="utf-8").strip() + "\n".join(more), encoding="utf-8")
    result = fit_studies(path)
    own = {effect.key.family: effect for effect in result.effects if effect.paper == "own"}
    assert list(own) == ["multi-group", "multi-query", "H64-MQA", "H64-MQA-CLA2"]
    assert own["multi-query"].log_loss == pytest.approx(math.log(2.52 / 2.50), abs=3e-4)
    # No multi-head model was tuned: 2.46 over 2.42 and 2.45, which are over 2.52 and 2.55.
    assert own["H64-MQA-CLA2"].log_loss == pytest.approx(
        math.log(2.46 / 2.42 * 2.52 / 2.5), abs=3e-3
    )
    last = len(path.read_text(encoding="utf-8").splitlines())
    assert f"Nothing joins them to a multi-head run: line {last}." in result.notes
