"""tradeoff, scaling and quality: what they print is documented, and what the functions give."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from command_line import bifurcate
from reference import section

import simulator
from simulator.views.quality import quality_object
from simulator.views.studies import studies_object
from simulator.views.tradeoff import scaling_object, tradeoff_object

MODEL = ("-m", "llama-2-7b")
RUNS = """parameters,heads,kv_heads,loss
1.25e8,12,12,3.21
3.5e8,16,16,2.87
1.3e9,24,24,2.54
6.7e9,32,32,2.26
1.25e8,12,1,3.26
3.5e8,16,1,2.90
1.3e9,24,1,2.56
6.7e9,32,1,2.28
1.3e9,24,5,2.5
"""
COUNTS = "problem,samples,correct\na,20,3\nb,20,0\nc,20,25\n"


@pytest.fixture
def runs(tmp_path: Path) -> str:
    """Write training runs; the last row is bad."""
    path = tmp_path / "runs.csv"
    path.write_text(RUNS, encoding="utf-8")
    return str(path)


@pytest.fixture
def counts(tmp_path: Path) -> str:
    """Write counts of problems; the last row is bad."""
    path = tmp_path / "counts.csv"
    path.write_text(COUNTS, encoding="utf-8")
    return str(path)


def keys_of(value: Any) -> set[str]:
    """Return every key of a JSON value, at any depth."""
    if isinstance(value, dict):
        return {*value, *(key for item in value.values() for key in keys_of(item))}
    if isinstance(value, list):
        return {key for item in value for key in keys_of(item)}
    return set()


def undocumented(names: set[str], *sections: str) -> list[str]:
    """Return the names that no section of the reference pages has."""
    text = "".join(map(section, sections))
    return sorted(name for name in names if f"`{name}`" not in text)


def rows_of(text: str) -> list[dict[str, str]]:
    """Return the rows of a CSV answer."""
    return list(csv.DictReader(io.StringIO(text)))


def test_tradeoff_gives_what_the_function_gives(runs: str) -> None:
    """Every number of the JSON, with and without a law; every key documented."""
    shown = bifurcate("tradeoff", *MODEL, "-n", "4", "--target-kv-heads", "8", "--json").json
    result = simulator.tradeoff("llama-2-7b", samples=4, target_kv_heads=[8])
    assert shown == json.loads(json.dumps(tradeoff_object(result)))
    done = bifurcate("tradeoff", *MODEL, "--runs", runs, "--json")
    fitted = simulator.tradeoff("llama-2-7b", training_runs=runs)
    assert done.json == json.loads(json.dumps(tradeoff_object(fitted)))
    assert "line 10: heads = 24 is not a multiple of kv_heads = 5" in done.err
    assert undocumented(keys_of(done.json), "tradeoff", "scaling", "estimate", "compare") == []


@pytest.mark.parametrize("part", ["models", "crossover", "map"])
def test_rows_of_a_tradeoff(part: str) -> None:
    """Each kind of row has the figures of the JSON."""
    table = rows_of(
        bifurcate(
            "tradeoff", *MODEL, "--rows", part, "--most-samples", "64", "--format", "csv"
        ).text
    )
    answer = bifurcate("tradeoff", *MODEL, "--most-samples", "64", "--json").json
    if part == "models":
        assert [row["step_ms"] for row in table] == [
            f"{model[attention]['step_ms']:.9g}"
            for model in answer["models"]
            for attention in ("standard", "bifurcated")
        ]
    elif part == "crossover":
        crossed = answer["crossovers"][0]
        assert [row["from_samples"] for row in table] == [
            "" if value is None else str(value)
            for pairing in crossed["pairings"]
            for value in pairing["from_samples"]
        ]
        assert len(table) == 3 * len(crossed["context_tokens"])
    else:
        share = [float(row["speedup"]) > 1 for row in table if row["base_attention"] == "standard"]
        pairing = answer["crossovers"][0]["pairings"][0]
        assert sum(share) / len(share) == pytest.approx(pairing["share_faster"])
        names = {"base_model", "size_factor", "base_step_ms", "other_step_ms", "speedup"}
        assert undocumented(names | {"base_memory_share"}, "tradeoff") == []


def test_the_table_tells_the_verdict_and_the_border() -> None:
    """Both models, both kinds of attention, where the larger is faster, and who says how large."""
    text = bifurcate("tradeoff", *MODEL).text
    result = simulator.tradeoff("llama-2-7b")
    base, other = (item.variants["standard"].result.step_s for item in result.candidates)
    assert f"{base / other:.2f} times as fast as llama-2-7b with standard attention" in text
    first = result.crossovers[0].borders["standard", "standard"].from_samples[0]
    assert re.search(rf"both standard\s+{first}\+", text)
    assert "multi-query, nothing put back: cla2024, gla2025, pooled over" in text
    paper = bifurcate("tradeoff", *MODEL, "--size-factor", "paper").text
    assert "1.100, Athiwaratkun et al., arXiv 2403.08845" in paper


def test_scaling_gives_what_the_function_gives(runs: str, tmp_path: Path) -> None:
    """The JSON, its documentation, the rows of every run, a figure, and the refused row."""
    picture = tmp_path / "law.html"
    done = bifurcate("scaling", runs, "--json", "--figure", str(picture))
    result = simulator.fit_scaling_law(runs)
    assert done.json == json.loads(json.dumps(scaling_object(result)))
    assert undocumented(keys_of(done.json), "scaling") == []
    assert "line 10" in done.err
    assert "<html" in picture.read_text(encoding="utf-8")
    table = rows_of(bifurcate("scaling", runs, "--format", "csv").text)
    assert undocumented(set(table[0]), "scaling") == []
    for row, run in zip(table, result.runs, strict=True):
        assert float(row["loss"]) == run.loss
        assert float(row["fitted_loss"]) / run.loss - 1 == pytest.approx(
            float(row["residual"]), abs=1e-8
        )
        assert (row["held_out_loss"] != "") == (run.parameters == 6.7e9)
    text = bifurcate("scaling", runs).text
    assert f"{result.laws[1].low:.3f} to {result.laws[1].high:.3f}" in text


def test_equal_loss_parameters_are_those_of_the_reference(runs: str) -> None:
    """A multi-query run's equal in multi-head is smaller by about its size factor."""
    table = rows_of(bifurcate("scaling", runs, "--format", "csv").text)
    factor = simulator.fit_scaling_law(runs).laws[1].size_factor
    ratios = [
        float(row["parameters"]) / float(row["equal_loss_parameters"])
        for row in table
        if row["family"] == "multi-query"
    ]
    assert min(ratios) < factor < max(ratios)


def test_quality_gives_what_the_function_gives(counts: str) -> None:
    """The JSON for a rate and for counts, its documentation, and the refused row."""
    asked = ("--output-len", "64", "--target-request-s", "2", "--most-samples", "30")
    done = bifurcate("quality", *MODEL, "--counts", counts, *asked, "--json")
    result = simulator.quality(
        "llama-2-7b", problem_counts=counts, output_tokens=64, target_request_s=2, most_samples=30
    )
    assert done.json == json.loads(json.dumps(quality_object(result)))
    assert undocumented(keys_of(done.json), "quality", "estimate") == []
    assert "line 4: correct = 25 is more than samples = 20" in done.err
    rate = bifurcate("quality", *MODEL, "--success-rate", "0.1", "--json").json
    assert rate == quality_object(simulator.quality("llama-2-7b", success_rate=0.1))
    table = rows_of(bifurcate("quality", *MODEL, "--success-rate", "0.1", "--format", "csv").text)
    assert [row["pass_at_k"] for row in table] == [
        f"{point['pass_at_k']:.9g}" for point in rate["points"]
    ]


@pytest.mark.parametrize(
    ("typed", "code", "words"),
    [
        (("quality", *MODEL), 2, ("--success-rate", "--counts")),
        (("quality", *MODEL, "--success-rate", "0.1", "--counts", "x"), 2, ("give either",)),
        (("quality", *MODEL, "--counts", "nowhere.csv"), 1, ("cannot read nowhere.csv",)),
        (("quality", *MODEL, "--success-rate", "x"), 2, ("--success-rate", "'x'")),
        (("quality", *MODEL, "--success-rate", "0.1", "--figure", "x.gif"), 1, (".png",)),
        (("tradeoff", *MODEL, "--runs", "x", "--size-factor", "1"), 2, ("give one",)),
        (("tradeoff", *MODEL, "--target-kv-heads", "x"), 2, ("--target-kv-heads", "'x'")),
        (("tradeoff", *MODEL, "--scale-by", "dept"), 2, ("did you mean 'depth'?",)),
        (("tradeoff", *MODEL, "--rows", "mapp"), 2, ("did you mean 'map'?",)),
        (("tradeoff", *MODEL, "--figure", "x"), 1, (".html",)),
        (("tradeoff", "-m", "deepseek-v3"), 1, ("latent",)),
        (("tradeoff", "-m", "starcoder"), 1, ("--kv-heads = 48 makes it multi-head",)),
        (("scaling",), 2, ("RUNS",)),
        (("scaling", "nowhere.csv"), 1, ("cannot read nowhere.csv",)),
    ],
)
def test_mistakes_get_one_line(typed: tuple[str, ...], code: int, words: tuple[str, ...]) -> None:
    """One clear line on stderr, nothing on stdout."""
    done = bifurcate(*typed)
    assert (done.code, done.out) == (code, "")
    assert [word for word in words if word not in done.told] == []


STUDIES = """study,family,parameters,loss,matched_by,tokens,heads,kv_heads
one,MHA,2e8,3.30,FFN width,1e10,16,16
one,MHA,6e8,3.05,FFN width,1e10,16,16
one,MHA,2e9,2.80,FFN width,1e10,16,16
one,MQA,2e8,3.32,FFN width,1e10,16,1
one,MQA,6e8,3.06,FFN width,1e10,16,1
one,MQA,2e9,2.82,FFN width,1e10,16,1
two-a,MHA,1e9,2.60,FFN width,3e10,,
two-a,MQA,1e9,2.62,FFN width,3e10,,
two-a,MLA,1e9,2.58,FFN width,3e10,,
two-a,MLA,1e9,bad,FFN width,3e10,,
"""


def test_runs_of_several_studies(tmp_path: Path) -> None:
    """They are pooled; keys are documented, CSV has the papers' effects, tradeoff takes them."""
    path = tmp_path / "studies.csv"
    path.write_text(STUDIES, encoding="utf-8")
    done = bifurcate("scaling", str(path), "--json")
    result = simulator.fit_studies(path)
    assert done.json == json.loads(json.dumps(studies_object(result)))
    assert "line 11: loss = 'bad' is not a number" in done.err
    papers = {exponent.paper for exponent in result.exponents}
    assert not undocumented(keys_of(done.json) - papers, "scaling")
    rows = rows_of(bifurcate("scaling", str(path), "--format", "csv").out)
    assert [(row["paper"], row["family"]) for row in rows] == [
        (effect.paper, effect.key.family) for effect in result.effects
    ]
    shown = bifurcate("scaling", str(path)).out
    assert "9 training runs of 2 sets" in shown
    assert "Too few sizes for an exponent of their own, so the pooled one: two." in shown
    found = next(f for f in result.factors if f.family == "MLA")
    asked = ("--runs", str(path), "--family", "mla", "--scale-by", "mlp", "--json")
    other = bifurcate("tradeoff", *MODEL, *asked).json["models"][1]
    assert other["size_factor"]["value"] == pytest.approx(found.size_factor)
    assert other["size_factor"]["low"] == pytest.approx(found.low)


def test_a_family_or_kv_heads_but_not_both() -> None:
    """Both would say the models to compare with."""
    done = bifurcate("tradeoff", *MODEL, "--family", "mqa", "--target-kv-heads", "1")
    assert done.code == 2
    assert "give one" in done.err
