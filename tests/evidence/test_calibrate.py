"""Fits find the constants that made the rows, say what rows cannot tell, and repeat exactly."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from simulator.errors import MeasurementError
from simulator.evidence.fit.calibrate import Calibration, calibrate, error_summary
from simulator.evidence.fit.profile import profile_path, profile_text
from simulator.evidence.fit.solver import _Problem, fit, with_constants
from simulator.evidence.fit.stages import STAGES, wanted_rows
from simulator.evidence.predict.prepare import prepare
from simulator.evidence.rows.reading import Measurements, load
from simulator.inputs.hardware import HardwareProfile, load_hardware, read_profile
from simulator.timing.constants import CONSTANTS, SERVED, Key, rates, variants_of

# Any card without fitted constants of its own will do.
CARD = "l4"
TRUE_GEMM = {
    "gemm_launch_us": 4.5,
    "tile_gb_per_s": 60,
    "tile_start_k": 300,
    "split_k_us": 1.5,
    "gemm_bandwidth_fraction": 0.72,
    "gemm_flops_fraction": 0.66,
}
SHAPES = [(n, k) for n in (512, 2048, 4096, 14336) for k in (256, 1024, 4096, 8192)]


def bare() -> HardwareProfile:
    """Return the card with nothing fitted."""
    return load_hardware(CARD).but(fitted={})


def made(
    tmp_path: Path,
    constants: dict[str, float],
    *,
    rows: list[tuple[int, int, int]],
    noise: float = 0.02,
    outliers: bool = True,
    framework: str = "",
    dtype: str = "bf16",
) -> Measurements:
    """Return GEMM rows that the timing model made with these constants, and noise."""
    frame = pd.DataFrame(rows, columns=["m", "n", "k"]).assign(
        gpu=CARD, framework=framework, dtype=dtype, source="made up", latency_us=1.0
    )
    path = tmp_path / "made.csv"
    frame.to_csv(path, index=False)
    table = load([path], keep_suspect=True).tables["gemm"]
    generator = np.random.default_rng(1)
    for group in prepare(table, "gemm").groups:
        exact = group.predict(with_constants(bare(), constants))
        factor = np.exp(noise * generator.standard_normal(len(exact)))
        if outliers:
            factor[::13] *= 1.6
        table.loc[group.index, "latency_us"] = exact * factor * 1e6
    table.drop(columns=["time_s", "gpu_id", "line", "file"]).to_csv(path, index=False)
    return load([path])


def full_grid() -> list[tuple[int, int, int]]:
    """Return products from launch-bound to compute-bound."""
    return [(m, n, k) for n, k in SHAPES for m in (1, 16, 64, 256, 1024, 4096)]


def test_the_constants_that_made_the_rows_are_found(tmp_path: Path) -> None:
    """With 2 % noise and one row in 13 at +60 %, all come out."""
    result = calibrate(made(tmp_path, TRUE_GEMM, rows=full_grid()), load_hardware(CARD))
    found = result.values()
    for name, true in TRUE_GEMM.items():
        value, stderr, rows = found[name]
        # Few products are split, or held up by loading their tiles.
        tolerance = 0.15 if name in {"tile_gb_per_s", "tile_start_k", "split_k_us"} else 0.06
        assert value == pytest.approx(true, rel=tolerance), name
        assert stderr is not None
        assert 0 < stderr < 2 * tolerance * true
        assert rows == len(full_grid())
    assert error_summary(result.fits[0].fitted.held_out)["median_ape"] < 0.03


def test_a_fit_repeats_to_the_last_digit(tmp_path: Path) -> None:
    """The same rows give the same constants and errors, also from a calibrated profile."""
    measurements = made(tmp_path, TRUE_GEMM, rows=full_grid())
    first = calibrate(measurements, load_hardware(CARD))
    calibrated = with_constants(load_hardware(CARD), {"gemm_launch_us": 9.0})
    again = calibrate(measurements, calibrated)
    assert first.values() == again.values()


def test_what_rows_cannot_tell_is_said_and_left_alone(tmp_path: Path) -> None:
    """Products of one row say nothing of the matrix rate, which keeps its value."""
    rows = [(1, n, k) for n, k in SHAPES]
    part = calibrate(made(tmp_path, TRUE_GEMM, rows=rows), load_hardware(CARD)).fits[0]
    assert Key("flops_fraction", "gemm") in part.untold
    assert "gemm_flops_fraction" not in part.fitted.constants
    assert "m of 1024" in wanted_rows(Key("flops_fraction", "gemm"))


def test_every_constant_that_rows_may_not_tell_has_rows_that_would() -> None:
    """So "other shapes" is never the advice, but for the paper's own copies and products."""
    vague = {
        str(item.key)
        for stage in STAGES
        for item in stage.free
        if wanted_rows(item.key) == "other shapes"
    }
    assert all(name.startswith("harness_") for name in vague)
    assert not vague & {"harness_cat_fraction", "harness_graph_kernel_us"}


def test_the_edge_of_a_range_is_reported(tmp_path: Path) -> None:
    """Rows faster than the published peak allows push the share to 1, and it is said."""
    fast = {**TRUE_GEMM, "gemm_bandwidth_fraction": 1.3}
    part = calibrate(made(tmp_path, fast, rows=full_grid()), load_hardware(CARD)).fits[0]
    assert "gemm_bandwidth_fraction" in part.fitted.bounded


def test_what_rows_only_bound_spoils_no_other_constant(tmp_path: Path) -> None:
    """Where splitting a product never pays, its time is at the edge, whatever other cards take."""
    never = {**TRUE_GEMM, "split_k_us": 1e4}
    part = calibrate(made(tmp_path, never, rows=full_grid()), load_hardware(CARD)).fits[0]
    _, most = CONSTANTS["split_k_us"].fit[None]
    assert part.fitted.bounded == ("split_k_us",)
    assert part.fitted.constants["split_k_us"] == most
    for name in ("gemm_launch_us", "gemm_bandwidth_fraction", "gemm_flops_fraction"):
        assert part.fitted.constants[name] == pytest.approx(TRUE_GEMM[name], rel=0.06), name


def test_a_constant_carried_from_an_edge_is_found_there_again(tmp_path: Path) -> None:
    """A fit that starts from its own result says again that the rows bound it."""
    _, most = CONSTANTS["split_k_us"].fit[None]
    table = made(tmp_path, {**TRUE_GEMM, "split_k_us": 1e4}, rows=full_grid()).tables["gemm"]
    groups = prepare(table, "gemm").groups
    rows = table.loc[[label for group in groups for label in group.index]]
    card = with_constants(bare(), {**TRUE_GEMM, "split_k_us": most})
    (stage, *_) = (stage for stage in STAGES if stage.kind == "gemm")
    shapes = rows["n"].to_numpy(dtype=str)
    found = fit(card, groups, rows["time_s"].to_numpy(), shapes, stage.free)
    assert found.constants["split_k_us"] == most
    assert "split_k_us" in found.bounded


def test_a_fit_is_the_same_wherever_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the card's values, and from the middle of the ranges, which are far from them."""
    measurements = made(tmp_path, TRUE_GEMM, rows=full_grid())
    starts, found = _Problem.starts, []
    for number in (0, 1):
        monkeypatch.setattr(_Problem, "starts", lambda self, i=number: [starts(self)[i]])
        found.append(calibrate(measurements, load_hardware(CARD)).fits[0].fitted.constants)
    assert found[0] == pytest.approx(found[1], rel=0.01)


def test_libraries_get_their_own_where_there_are_several(tmp_path: Path) -> None:
    """Two libraries that differ in launch time: each is found, and the general one between."""
    slow = {**TRUE_GEMM, "gemm_launch_us": 9.0}
    parts = []
    for name, constants in (("vllm", TRUE_GEMM), ("sglang", slow)):
        loaded = made(tmp_path, constants, rows=full_grid(), framework=name)
        parts.append(loaded.tables["gemm"])
    both = Measurements({"gemm": pd.concat(parts, ignore_index=True)})
    found = calibrate(both, load_hardware(CARD)).values()
    assert found["vllm_gemm_launch_us"][0] == pytest.approx(4.5, rel=0.06)
    assert found["sglang_gemm_launch_us"][0] == pytest.approx(9.0, rel=0.06)
    assert 4.5 < found["gemm_launch_us"][0] < 9.0


def test_a_single_library_s_rows_are_fitted_for_questions_too(tmp_path: Path) -> None:
    """vLLM's quantise kernel takes longer than any library's: only its own products make up for it.

    Where no kernel beside the product differs, general constants serve the library as well.
    """
    true = {f"fp8_{name}": value for name, value in TRUE_GEMM.items()}
    rows = [(m, n, k) for n, k in SHAPES if n * k < 5e6 for m in (1, 16, 64)]
    of_vllm = made(tmp_path, true, rows=rows, framework="vllm", dtype="fp8", outliers=False)
    found = calibrate(of_vllm, load_hardware(CARD)).values()
    launches = (
        rates(bare(), variants=variants_of([library], "fp8")).launch_s["quantise"] * 1e6
        for library in ("vllm", "")
    )
    longer = next(launches) - next(launches)
    assert longer > 0.2
    own, general = (found[f"{name}fp8_gemm_launch_us"][0] for name in ("vllm_", ""))
    assert general - own == pytest.approx(longer, abs=0.1)
    plain = made(tmp_path, TRUE_GEMM, rows=full_grid(), framework="vllm")
    assert "vllm_gemm_launch_us" not in calibrate(plain, load_hardware(CARD)).values()


def test_a_kernel_to_fall_back_to_does_not_tell_of_its_gpu(tmp_path: Path) -> None:
    """Triton at a third of the bandwidth has constants of its own, and leaves the general ones."""
    known = {
        ("trtllm_mha", "sglang"): {"attention_bandwidth_fraction": 0.9, "attention_launch_us": 8},
        ("triton", "triton"): {"attention_bandwidth_fraction": 0.3, "attention_launch_us": 12},
    }
    sizes = [
        {"batch": batch, "kv_len": length, "kv_heads": heads, "q_heads": 4 * heads}
        for batch in (1, 8, 64)
        for length in (64, 1024, 8192, 32768)
        for heads in (1, 2, 4, 8)
    ]
    rows = pd.DataFrame([{**size, "kernel": kernel} for kernel, _ in known for size in sizes])
    path = tmp_path / "made.csv"
    rows.assign(gpu="b200-sxm", framework="sglang", head_dim=128, latency_us=1.0).to_csv(path)
    table = load([path], keep_suspect=True).tables["decode_attention"]
    card = load_hardware("b200-sxm").but(fitted={})
    for group in prepare(table, "decode_attention").groups:
        (kernel,) = set(table.loc[group.index, "kernel"])
        (name,) = (name for each, name in known if each == kernel)
        values = {f"{name}_{key}": value for key, value in known[kernel, name].items()}
        table.loc[group.index, "time_s"] = group.predict(with_constants(card, values))
    found = calibrate(Measurements({"decode_attention": table}), card).values()
    assert found["attention_bandwidth_fraction"][0] == pytest.approx(0.9, rel=0.02)
    assert found["triton_attention_bandwidth_fraction"][0] == pytest.approx(0.3, rel=0.02)
    # Its launch and that of the cache's write are hardly told apart.
    fixed = [found[f"{name}attention_launch_us"][0] for name in ("", "triton_")]
    assert fixed[0] + 1.5 < fixed[1]


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    """A handful of rows is no calibration, and the message names what can be fitted."""
    measurements = made(tmp_path, TRUE_GEMM, rows=[(1, 512, 256)], outliers=False)
    with pytest.raises(MeasurementError, match="no rows of l4 that can be fitted"):
        calibrate(measurements, load_hardware(CARD))
    others = Measurements({}, of_others={"l40s": 9})
    with pytest.raises(MeasurementError, match="no rows of l4 that can be fitted; -g can be l40s"):
        calibrate(others, load_hardware(CARD))


def _written(result: Calibration, folder: Path) -> tuple[str, Any]:
    """Write a profile and read it back."""
    original = profile_path(CARD).read_text(encoding="utf-8")
    text = profile_text(original, result, gpu_id=CARD, date="2026-11-23")
    path = folder / f"{CARD}.toml"
    path.write_text(text, encoding="utf-8")
    return text, read_profile(path)


def test_a_written_profile_keeps_what_people_wrote(tmp_path: Path) -> None:
    """Comments and figures stay, and the constants are used with their source, rows and date."""
    result = calibrate(made(tmp_path, TRUE_GEMM, rows=full_grid()), load_hardware(CARD))
    text, profile = _written(result, tmp_path)
    original = profile_path(CARD).read_text(encoding="utf-8")
    comments = [line for line in original.splitlines() if line.startswith("#")]
    assert all(line in text for line in comments)
    before = {key: value for key, value in tomllib.loads(original).items() if key != "fitted"}
    after = tomllib.loads(text)
    fitted = after.pop("fitted")
    assert set(before.pop("sources").items()) < set(after.pop("sources").items())
    assert before == after
    assert fitted["gemm_launch_us"]["date"] == "2026-11-23"
    assert "made up: gemm" in fitted["gemm_launch_us"]["source"]
    used = rates(profile).constants[Key("launch_us", "gemm")]
    assert used.origin == "fitted"
    assert used.value == pytest.approx(result.values()["gemm_launch_us"][0], rel=1e-3)


def test_a_bound_is_not_written_as_a_value_without_error(tmp_path: Path) -> None:
    """What the rows only bound has no standard error in the profile, and a comment says so."""
    result = calibrate(made(tmp_path, TRUE_GEMM, rows=full_grid()), load_hardware(CARD))
    part = result.fits[0]
    errors = {name: error for name, error in part.fitted.stderr.items() if name != "split_k_us"}
    part.fitted = replace(part.fitted, bounded=("split_k_us",), stderr=errors)
    assert "split_k_us" in part.fitted.constants
    text, profile = _written(result, tmp_path)
    assert "# the rows only bound split_k_us" in text
    assert profile.fitted["split_k_us"].stderr is None
    assert profile.fitted["gemm_launch_us"].stderr


def test_the_constants_of_a_link_are_found(tmp_path: Path) -> None:
    """All-reduces of 2, 4 and 8 GPUs tell apart launches, hops, the second shot and both rates."""
    true = {
        "collective_launch_us": 4.0,
        "hop_us": 0.4,
        "exchange_us": 6.0,
        "chunk_us": 0.5,
        "link_fraction": 0.8,
        "switch_fraction": 0.6,
    }
    card = load_hardware("h100-sxm").but(fitted={})
    rows = [
        {"gpu": card.id, "num_gpus": gpus, "message_bytes": 2.0**power, "latency_us": 1.0}
        for gpus in (2, 4, 8)
        for power in range(8, 31)
    ]
    path = tmp_path / "made.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    table = load([path], keep_suspect=True).tables["all_reduce"]
    noise = np.random.default_rng(1)
    for group in prepare(table, "all_reduce").groups:
        exact = group.predict(with_constants(card, true))
        table.loc[group.index, "latency_us"] = (
            exact * np.exp(0.02 * noise.standard_normal(len(exact))) * 1e6
        )
    table.drop(columns=["time_s", "gpu_id", "line", "file"]).to_csv(path, index=False)
    found = calibrate(load([path]), card)
    for name, value in true.items():
        assert found.values()[name][0] == pytest.approx(value, rel=0.15), name
    assert error_summary(found.fits[0].fitted.held_out)["median_ape"] < 0.03
    assert "collectives: 69 rows of 69 shapes" in profile_text(
        profile_path(card.id).read_text(encoding="utf-8"), found, gpu_id=card.id, date="2026-11-29"
    )


def engine_rows(tmp_path: Path, terms: dict[str, float], **more: Any) -> pd.DataFrame:
    """Return runs under load of Llama 3.1 8B on an H100 that take exactly what is predicted."""
    asked = {"users": (1, 4, 16, 64, 256), "lengths": ((1024, 512), (4096, 512)), "engine": "vllm"}
    asked |= more
    rows = [
        {"gpu": "h100-sxm", "engine": asked["engine"], "model": "llama-3.1-8b", "tpot_ms": 1e3}
        | {"concurrency": users, "input_len": context, "output_len": output}
        for users in asked["users"]
        for context, output in asked["lengths"]
    ]
    path = tmp_path / "runs.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    table = load([path]).tables["serving"]
    (group,) = prepare(table, "serving").groups
    card = with_constants(load_hardware("h100-sxm"), terms)
    return table.assign(time_s=pd.Series(group.predict(card), group.index))


def noisy(table: pd.DataFrame, seed: int, noise: float = 0.02) -> Calibration:
    """Calibrate runs with some noise."""
    factors = np.exp(noise * np.random.default_rng(seed).standard_normal(len(table)))
    times = Measurements({"serving": table.assign(time_s=table["time_s"] * factors)})
    return calibrate(times, load_hardware("h100-sxm"))


STEP, SEQUENCE = "vllm_served_step_us", "vllm_served_sequence_us"


def test_the_times_of_an_engine_come_back_within_their_errors(tmp_path: Path) -> None:
    """Of ten series of runs: 80 % lie within 1.28 errors, so of twenty times 11 at the least."""
    terms = {STEP: 800.0, SEQUENCE: 20.0}
    table = engine_rows(tmp_path, terms)
    found = [noisy(table, seed).values() for seed in range(10)]
    assert all({*values} >= {*terms} for values in found)
    off = [
        abs(values[name][0] - true) / cast("float", values[name][1])
        for values in found
        for name, true in terms.items()
    ]
    assert sum(each <= 1.28 for each in off) >= 11
    assert max(off) < 4
    # The errors are as large as the noise of the rows makes them, to within two.
    spread = {name: np.std([values[name][0] for values in found]) for name in terms}
    told = {name: np.mean([values[name][1] for values in found]) for name in terms}
    assert all(0.5 < told[name] / spread[name] < 2 for name in terms)


def test_an_engine_that_adds_nothing_is_given_nothing(tmp_path: Path) -> None:
    """Noise alone seldom passes for the time of an engine: in one of ten series at the most."""
    table = engine_rows(tmp_path, {})
    found = [noisy(table, seed) for seed in range(10)]
    assert sum(bool(each.values()) for each in found) <= 1
    (fit,) = found[0].fits
    assert {key.name for key in fit.untold} == set(SERVED)
    assert "few users" in wanted_rows(Key(SERVED[0]))


def test_few_runs_tell_less(tmp_path: Path) -> None:
    """Three runs tell the time of a step, with a larger error; of sequences, nothing."""
    few = {"users": (1, 2, 4), "lengths": ((1024, 512),)}
    three, ten = (engine_rows(tmp_path, {STEP: 800.0}, **more) for more in (few, {}))
    some, many = noisy(three, 1).values(), noisy(ten, 1).values()
    assert {*some} == {STEP}
    assert cast("float", some[STEP][1]) > 1.3 * cast("float", many[STEP][1])
    assert some[STEP][0] == pytest.approx(800, abs=2 * cast("float", some[STEP][1]))
    with pytest.raises(MeasurementError, match="2 of the 3 rows that are needed"):
        noisy(three[:2], 1)


def test_runs_with_all_else_alike_tell_one_time(tmp_path: Path) -> None:
    """At one number of users, what is for each step and for each sequence is the same."""
    alike = {"users": (16,), "lengths": ((512, 512), (1024, 512), (4096, 512), (8192, 512))}
    table = engine_rows(tmp_path, {STEP: 800.0, SEQUENCE: 20.0}, **alike)
    assert len(noisy(table, 1, noise=0.01).values()) == 1


def test_an_engine_s_time_stays_its_own_and_kernels_stay_as_they_were(tmp_path: Path) -> None:
    """Of two engines each has its own, and a profile's other constants are kept."""
    slow, plain = (
        engine_rows(tmp_path, terms, engine=engine)
        for engine, terms in (("vllm", {STEP: 2000.0}), ("sglang", {}))
    )
    both = pd.concat([slow, plain], ignore_index=True)
    card = load_hardware("h100-sxm")
    result = calibrate(Measurements({"serving": both}), card)
    assert {*result.values()} == {STEP}
    assert result.values()[STEP][0] == pytest.approx(2000, rel=0.001)
    text = profile_text(
        profile_path(card.id).read_text(), result, gpu_id=card.id, date="2026-01-01"
    )
    path = tmp_path / "h100-sxm.toml"
    path.write_text(text)
    own = read_profile(path)
    assert own.fitted.keys() - card.fitted.keys() == {STEP}
    assert "llama-3.1-8b" in own.fitted[STEP].source
    assert all(own.fitted[name] == figure for name, figure in card.fitted.items())
    # Runs of another day replace it, and leave the rest, another engine's times too.
    own = with_constants(own, {"sglang_served_step_us": 300.0})
    later = engine_rows(tmp_path, {STEP: 1000.0})
    again = calibrate(Measurements({"serving": later}), own)
    assert again.values()[STEP][0] == pytest.approx(1000, rel=0.001)
    assert again.profile.fitted.keys() == own.fitted.keys()
    newer = tomllib.loads(profile_text(text, again, gpu_id=card.id, date="2026-01-02"))["fitted"]
    assert newer.keys() == own.fitted.keys() - {"sglang_served_step_us"}
    assert newer[STEP]["date"] == "2026-01-02"
