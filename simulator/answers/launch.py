"""The command line of a serving engine that starts a deployment."""

import shlex
from collections.abc import Mapping

from simulator.answers.advice import no_shared_kernel
from simulator.answers.load import Deployment
from simulator.answers.rules import common_tokens
from simulator.inputs.presets import find_preset
from simulator.inputs.setup import Attention

# The versions that have these flags: recalled from `vllm serve --help`; of cascade attention, read.
VERSIONS: Mapping[Attention, str] = {
    "standard": "vLLM 0.10 and later, recalled",
    "bifurcated": "vLLM 0.18 to 0.31, which read once only what all requests share: "
    "docs/how-to/vllm.md",
}


def launch_line(deployment: Deployment) -> str:
    """Return the line that starts one replica in vLLM; empty for other engines and if none fits.

    Also empty for bifurcated attention where no engine has a kernel for it, or requests share
    nothing, without which vLLM reads nothing once.

    Parameters
    ----------
    deployment
        The model on its GPUs. Formats for which vLLM needs a checkpoint of their own have no flag.
    """
    setup, model = deployment.setup, deployment.model
    shared = common_tokens(deployment.request.together(2))
    unable = setup.bifurcated and (no_shared_kernel(model, deployment.gpu) or not shared)
    if setup.engine != "vllm" or deployment.server is None or unable:
        return ""
    work = deployment.request.workload
    sequences = deployment.server.most * int(work.samples) // setup.data_parallel
    options = {
        "tensor-parallel-size": setup.tensor_parallel if setup.tensor_parallel > 1 else None,
        "pipeline-parallel-size": setup.pipeline_parallel if setup.pipeline_parallel > 1 else None,
        "data-parallel-size": setup.data_parallel if setup.data_parallel > 1 else None,
        "enable-expert-parallel": "" if setup.expert_parallel > 1 else None,
        "max-model-len": deployment.request.length,
        "max-num-seqs": max(1, sequences),
        "max-num-batched-tokens": setup.max_batched_tokens,
        "gpu-memory-utilization": setup.gpu_memory_utilization,
        "kv-cache-dtype": "fp8" if setup.kv_dtype == "fp8" else None,
        "no-disable-cascade-attn": "" if setup.bifurcated else None,
        "quantization": "fp8" if setup.weight_dtype == "fp8" != model.weights.name else None,
    }
    flags = [f"--{name} {value}".rstrip() for name, value in options.items() if value is not None]
    preset = find_preset(model.name)
    on_hub = [name for name in (preset.aliases if preset else ()) if "/" in name]
    return " ".join(["vllm serve", shlex.quote([*on_hub, model.name][0]), *flags])
