"""Studies that the tests of figures share, one for each way a figure can turn out."""

from dataclasses import replace
from functools import cache

from simulator.answers.study import Study, study_scenario
from simulator.inputs.hardware import load_hardware
from simulator.inputs.presets import load_model
from simulator.inputs.scenario import load_scenario
from simulator.inputs.setup import ask

# What each is there for, and the scenario it is.
STUDIES = {
    "gain, and standard ends": "code-sampling-8k",
    "fits nowhere, latent cache": "mla-deepseek-v3",
    "no gain, one stored context": "gqa-small-batch-tp8",
    "a single point, experts": "",
}
# GPUs that those of one GPU are compared with: all that have a price would take long.
BESIDE = "a100-sxm-80gb"


@cache
def study(about: str) -> Study:
    """Return a study by what it is there for."""
    if STUDIES[about]:
        found = study_scenario(load_scenario(STUDIES[about]))
        return replace(found, gpus=(*found.gpus[:1], load_hardware(BESIDE)))
    model = load_model("mixtral-8x7b")
    setup, work = ask(model, samples=1, context_tokens=200, decoded_tokens=1)
    gpus = (load_hardware("h200-sxm"), load_hardware(BESIDE))
    return Study(models=(model,), gpus=gpus, setup=setup, workload=work, output_tokens=1)
