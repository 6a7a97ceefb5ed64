"""What ``import simulator`` offers: its names, what they accept, how they fail, and their types."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from command_line import bifurcate

import simulator
from simulator.answers.study import asked_scenario
from simulator.counts.memory import memory
from simulator.counts.transformer import decode_operations
from simulator.errors import WorkloadError
from simulator.inputs.scenario import scenario_files
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload
from simulator.resources import data_dir

CHECKOUT = Path(__file__).parents[1]
QUESTION: dict[str, Any] = {"samples": 16, "context_tokens": "8K"}


def test_the_public_names_are_all_there() -> None:
    """``__all__`` is without repeats, what dir() shows, and every name loads."""
    names = simulator.__all__
    assert dir(simulator) == sorted({*names})
    assert len(names) == len({*names})
    for name in names:
        assert getattr(simulator, name) is not None


def test_every_answer_and_its_type_is_public() -> None:
    """The functions that answer, and the classes they take and return, are all exported."""
    results = {
        "estimate": "Estimate",
        "compare": "Comparison",
        "generate": "Generation",
        "plan": "Plan",
        "tree": "TreePlan",
        "tradeoff": "Tradeoff",
        "quality": "Quality",
        "fit_scaling_law": "ScalingLaw",
        "fit_studies": "Studies",
        "prepare_sweep": "Sweep",
        "load_hardware": "HardwareProfile",
        "load_model": "ModelShape",
        "load_scenario": "Scenario",
    }
    for function, kind in results.items():
        module = import_module(getattr(simulator, function).__module__)
        annotation = getattr(simulator, function).__annotations__["return"]
        assert {function, kind} <= set(simulator.__all__)
        assert kind in str(annotation), module


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A name that is not public is refused as Python does."""
    with pytest.raises(AttributeError, match="has no attribute 'simulate'"):
        simulator.simulate  # noqa: B018


def test_star_import_brings_the_public_names() -> None:
    """``from simulator import *`` brings exactly the public names."""
    code = (
        "from simulator import *; import simulator, builtins; "
        "missing = [name for name in simulator.__all__ if name not in globals()]; "
        "assert not missing, missing"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_models_by_name_path_and_object(tmp_path: Path) -> None:
    """A model may be a preset's name or alias, a config.json, its folder, or a shape."""
    config = {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
        "max_position_embeddings": 4096,
        "torch_dtype": "float16",
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    shape = simulator.load_model("llama-2-7b")
    models = ("llama-2-7b", "meta-llama/Llama-2-7b-hf", shape, path, str(path), str(tmp_path))
    answers = {simulator.estimate(model, **QUESTION).step_s for model in models}
    assert len(answers) == 1


def test_gpus_by_name_alias_path_and_object() -> None:
    """A GPU may be an id, an alias, a path or a profile."""
    path = data_dir("hardware_profiles") / "h100-sxm.toml"
    profile = simulator.load_hardware("h100-sxm")
    gpus = ("h100-sxm", "NVIDIA H100 80GB HBM3", profile, path, str(path))
    answers = {simulator.estimate("gpt2", gpu, **QUESTION).step_s for gpu in gpus}
    assert answers == {simulator.estimate("gpt2", **QUESTION).step_s}


def test_a_model_from_plain_sizes() -> None:
    """A shape from plain sizes has the parameters of the model that has those sizes."""
    shape = simulator.model_from_flags(
        layers=32, hidden_size=4096, heads=32, intermediate_size=11008, vocab_size=32000
    )
    named = simulator.load_model("llama-2-7b")
    a, b = simulator.compare(shape, **QUESTION), simulator.compare(named, **QUESTION)
    assert a.kv_io_ratio == b.kv_io_ratio
    assert a.standard.totals.weight_bytes_read == b.standard.totals.weight_bytes_read


def test_kv_heads_changes_a_shape_as_it_does_a_name() -> None:
    """What-if KV heads work for a name and for an object alike."""
    shape = simulator.load_model("llama-2-7b")
    for model in ("llama-2-7b", shape):
        result = simulator.estimate(model, kv_heads=8, **QUESTION)
        assert result.totals.kv_bytes_read * 4 == 69_256_347_648
        assert result.model.kv_heads == 8


def test_sizes_may_be_texts() -> None:
    """Sizes are read as the command line reads them."""
    written = simulator.estimate("gpt2", samples="1K", context_tokens="8k")
    assert (written.workload.samples, written.workload.context_tokens) == (1024, 8000)


def test_answers_cannot_be_changed() -> None:
    """Answers and inputs are frozen: nobody changes another's numbers by accident."""
    result = simulator.compare("gpt2", **QUESTION)
    step = result.standard
    for item, field in ((result, "speedup"), (step, "memory"), (step.workload, "samples")):
        with pytest.raises(Exception, match=r"frozen|cannot assign"):
            setattr(item, field, 1)


def test_a_sweep_from_python() -> None:
    """A scenario's grid runs block by block, and blocks of any size give the same points."""
    grid = simulator.prepare_sweep(simulator.load_scenario("code-sampling-8k"))
    whole = [value for block in grid.blocks() for value in block["speedup"]]
    small = [value for block in grid.blocks(points_at_once=3) for value in block["speedup"]]
    assert len(whole) == grid.points == 22
    assert whole == small


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: simulator.estimate("gpt-2x"), "did you mean 'gpt2'?"),
        (lambda: simulator.estimate("gpt2", "h100sxm"), "did you mean 'h100-sxm'?"),
        (lambda: simulator.estimate("gpt2", sample=3), "did you mean 'samples'?"),
        (lambda: simulator.estimate("gpt2", samples=0), "samples = 0"),
        (lambda: simulator.estimate("gpt2", samples=2.5), "samples = 2.5"),
        (lambda: simulator.estimate("gpt2", samples=float("nan")), "samples = nan"),
        (lambda: simulator.estimate("gpt2", context_tokens=-1), "context_tokens = -1"),
        (lambda: simulator.estimate("gpt2", context_tokens="8Q"), "'8Q' is not a count"),
        (lambda: simulator.estimate("gpt2", attention="both"), "standard, bifurcated"),
        (lambda: simulator.estimate("gpt2", gpu_memory_utilization=0), "(0, 1]"),
        (lambda: simulator.estimate("gpt2", kv_heads=5), "kv_heads"),
        (lambda: simulator.generate("gpt2", output_tokens=0), "output_tokens = 0"),
        (lambda: simulator.generate("gpt2", price_per_hour=float("inf")), "price_per_hour"),
        (
            lambda: simulator.plan("gpt2", ["l4"], tensor_parallel_sizes=[0]),
            "tensor_parallel_sizes: at least 1 GPU",
        ),
        (lambda: simulator.plan("gpt2", ["l4"], target_step_ms=-1), "not positive"),
        (lambda: simulator.plan("gpt2", []), "nothing to plan with"),
        (lambda: simulator.load_model("/nowhere/config.json"), "No such file"),
        (lambda: simulator.load_hardware("/nowhere/gpu.toml"), "No such file"),
        (lambda: simulator.load_scenario("nowhere"), "unknown scenario"),
    ],
)
def test_every_error_is_ours_and_one_line(call: Any, words: str) -> None:
    """Whatever is wrong, the error is a SimulatorError whose one line says what."""
    with pytest.raises(simulator.SimulatorError) as caught:
        call()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


UNKNOWN = {"kernel": "flash4"}
SHAPE = simulator.load_model("gpt2")
DOORS: dict[str, Callable[[], Any]] = {
    "estimate": lambda: simulator.estimate("gpt2", **UNKNOWN),
    "compare": lambda: simulator.compare("gpt2", **UNKNOWN),
    "generate": lambda: simulator.generate("gpt2", **UNKNOWN),
    "plan": lambda: simulator.plan("gpt2", ["l4"], **UNKNOWN),
    "tree": lambda: simulator.tree("gpt2", tree="1K,64x2", **UNKNOWN),
    "tradeoff": lambda: simulator.tradeoff("gpt2", **UNKNOWN),
    "quality": lambda: simulator.quality("gpt2", success_rate=0.1, target_step_ms=20, **UNKNOWN),
    "decode_operations": lambda: decode_operations(
        SHAPE, Setup(kernel="flash4"), Workload(), resident_blocks=264
    ),
    "memory": lambda: memory(
        SHAPE, Setup(kernel="flash4"), Workload(), card_bytes=1e9, resident_blocks=264
    ),
    "prepare_sweep": lambda: simulator.prepare_sweep(
        asked_scenario({"model": ("gpt2",), "kernel": ("flash", "flash4")}, ["l4"])
    ),
}


@pytest.mark.parametrize("door", DOORS)
def test_an_unknown_kernel_is_an_error_at_every_door(door: str) -> None:
    """A name that no way of attention has is one line wherever it comes in, with the nearest."""
    with pytest.raises(WorkloadError) as caught:
        DOORS[door]()
    assert str(caught.value) == "unknown kernel 'flash4'; did you mean 'flash'?"


@pytest.mark.parametrize(
    "command",
    ["sweep", "plot roofline", "report -o {}", "explore", "measure --dry-run", "scenarios check"],
)
def test_an_unknown_kernel_is_an_error_of_every_command(tmp_path: Path, command: str) -> None:
    """Of an option the choices are named; a scenario says what a function of Python says."""
    done = bifurcate("estimate", "--model", "gpt2", "--kernel", "flash4")
    assert (done.code, done.out) == (2, "")
    assert "'flash4' is not one of ideal, flash, einsum, sdpa_math" in " ".join(done.err.split())
    path = tmp_path / "one-sample.toml"
    text = scenario_files()["one-sample"].read_text(encoding="utf-8")
    path.write_text(text.replace("[workload]", '[workload]\nkernel = "flash4"'), encoding="utf-8")
    done = bifurcate(*command.format(tmp_path / "page.html").split(), str(path))
    assert (done.code, done.out) == (1, "")
    said = done.err.replace("\nhint: ", "; ")
    assert said.endswith("unknown kernel 'flash4'; did you mean 'flash'?\n")


def test_typed_use_passes_mypy_strict() -> None:
    """A program that uses every public name with its types passes mypy --strict, and runs."""
    program = Path(__file__).parent / "typing" / "public_api.py"
    mypy = pytest.importorskip("mypy.api", reason="needs mypy")
    output, errors, code = mypy.run(["--strict", "--no-error-summary", str(program)])
    assert code == 0, output + errors
    subprocess.run([sys.executable, str(program)], check=True, capture_output=True)
    text = program.read_text(encoding="utf-8")
    assert [name for name in simulator.__all__ if f"simulator.{name}" not in text] == []


def test_what_is_asked_for_twice_is_planned_once() -> None:
    """A card by two of its names, and a size given twice, are one option each."""
    twice = simulator.plan(
        "llama-2-7b", ["h100", "h100-sxm", "l4"], tensor_parallel_sizes=[1, 2, 1]
    )
    once = simulator.plan("llama-2-7b", ["h100-sxm", "l4"], tensor_parallel_sizes=[1, 2])
    assert [(item.result.gpu.id, item.gpus, item.attention) for item in twice.options] == [
        (item.result.gpu.id, item.gpus, item.attention) for item in once.options
    ]
