"""Studies: a question and what to vary around it."""

from hypothesis import given
from hypothesis import strategies as st

from simulator.answers.study import Study, study_scenario
from simulator.inputs.hardware import load_hardware
from simulator.inputs.presets import load_model
from simulator.inputs.scenario import load_scenario
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload

MODEL, GPU = load_model("llama-3.1-8b"), load_hardware("h100-sxm")


def of(**sizes: int) -> Study:
    """Return a study of a single question."""
    return Study(models=(MODEL,), gpus=(GPU,), setup=Setup(), workload=Workload(**sizes))


def test_a_scenario_is_at_the_middle_of_its_axes() -> None:
    """Eleven sample counts from 1 to 1024: the sixth, 32, is asked about, and all are drawn."""
    study = study_scenario(load_scenario("code-sampling-8k"))
    assert (study.workload.samples, study.workload.context_tokens) == (32, 8192)
    assert study.samples_axis == tuple(2**power for power in range(11))
    assert [model.name for model in study.models] == ["llama-2-7b", "mistral-7b-v0.2"]
    assert study.target_step_s == 0.025
    assert study.output_tokens == 128


def test_kv_heads_of_a_scenario_are_no_models_of_their_own() -> None:
    """A what-if over KV heads compares one model, at its first number of them."""
    study = study_scenario(load_scenario("kv-heads-what-if"))
    assert [model.kv_heads for model in study.models] == [32]
    assert study.kv_heads == (1, 8, 32)


@given(st.integers(1, 10**6), st.integers(0, 10**6))
def test_axes_hold_the_question_in_ascending_order(samples: int, context: int) -> None:
    """Whatever is asked is a point of its axis, and never the only one."""
    study = of(samples=samples, context_tokens=context)
    for axis, asked in ((study.samples_axis, samples), (study.context_axis, context)):
        # No context at all has no place on a logarithmic axis.
        assert asked in axis or asked == 0
        assert list(axis) == sorted(set(axis))
        assert axis[0] >= 1
        assert len(axis) > 2
    assert study.samples_axis[-1] == 8 * samples


def test_the_context_stops_where_the_model_does() -> None:
    """A context is not drawn beyond what the model was made for, unless it is asked for."""
    assert of(context_tokens=100_000).context_axis[-1] == MODEL.max_context_tokens
    assert of(context_tokens=1_000_000).context_axis[-1] == 1_000_000
