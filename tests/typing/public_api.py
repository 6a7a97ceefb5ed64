"""A program as a user would type it: checked by mypy --strict and run by tests/test_api.py."""

from contextlib import suppress
from pathlib import Path
from typing import assert_type

import simulator


def main() -> None:
    """Use every public name and say what type comes back."""
    model: simulator.ModelShape = simulator.load_model("llama-2-7b")
    sizes = simulator.model_from_flags(layers=4, hidden_size=512, heads=8, kv_heads=2)
    gpu: simulator.HardwareProfile = simulator.load_hardware("h100-sxm")
    assert_type(sizes, simulator.ModelShape)
    assert_type(simulator.__version__, str)

    step = simulator.estimate(model, gpu, samples=16, context_tokens="8K", attention="bifurcated")
    assert_type(step, simulator.Estimate)
    assert_type(step.step_s, float)
    assert_type(step.tokens_per_s, float)
    assert_type(step.setup, simulator.Setup)
    assert_type(step.workload, simulator.Workload)

    both = simulator.compare("llama-2-7b", Path("hardware_profiles/l4.toml").stem, samples=4)
    assert_type(both, simulator.Comparison)
    assert_type(both.standard, simulator.Estimate)
    assert_type(both.speedup, float)
    assert_type(both.break_even_samples, int | None)
    assert_type(both.advice, str)

    request = simulator.generate(model, output_tokens=8, price_per_hour=2.5)
    assert_type(request, simulator.Generation)
    assert_type(request.usd_per_million_tokens, float | None)

    options = simulator.plan(sizes, ["l4", gpu], target_step_ms=50, tensor_parallel_sizes=[1, 2])
    assert_type(options, simulator.Plan)
    choices = simulator.tree(sizes, gpu, tree="system=2K,problem=512x8")
    assert_type(choices, simulator.TreePlan)
    assert_type(options.fewest_gpus, dict[str, int | None])

    fleet = simulator.plan(sizes, ["l4", gpu], requests_per_s=2, tpot_ms=50)
    assert_type(fleet, simulator.Plan)
    curve = simulator.serve(sizes, gpu, samples=4, output_tokens=64)
    assert_type(curve, simulator.Curve)
    assert_type(curve.points[0].tokens_per_s_per_user, float)

    equal = simulator.tradeoff(model, gpu, target_kv_heads=[1, 8], target_step_ms=20)
    assert_type(equal, simulator.Tradeoff)
    assert_type(equal.others[0].parameters, int)

    bought = simulator.quality(model, gpu, success_rate=0.1, target_step_ms=20)
    assert_type(bought, simulator.Quality)
    with suppress(simulator.SimulatorError):
        assert_type(simulator.fit_scaling_law("no such file.csv"), simulator.ScalingLaw)
        assert_type(simulator.fit_studies("no such file.csv"), simulator.Studies)

    scenario = simulator.load_scenario("one-sample")
    assert_type(scenario, simulator.Scenario)
    grid = simulator.prepare_sweep(scenario)
    assert_type(grid, simulator.Sweep)
    assert_type(grid.points, int)

    try:
        simulator.load_model("no such model")
    except simulator.SimulatorError as error:
        assert_type(error, simulator.SimulatorError)


def by_hand() -> None:
    """Build a record: without the mistakes, mypy would refuse the comments about them."""
    work = simulator.Workload(samples=4, context_tokens=4096)
    assert_type(work.samples, int)
    assert_type(work.but(samples=5), simulator.Workload)
    with suppress(ValueError):
        simulator.Workload(sample=4)  # type: ignore[call-arg]
    with suppress(ValueError):
        simulator.Setup(attention="bifurcate")  # type: ignore[arg-type]
    with suppress(AttributeError):
        work.samples = 5  # type: ignore[misc]


if __name__ == "__main__":
    main()
    by_hand()
