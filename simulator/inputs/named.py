"""Models and GPUs as people hand them over: a name, a path or the thing itself."""

from pathlib import Path

from simulator.errors import ModelError
from simulator.inputs.hardware import HardwareProfile, load_hardware
from simulator.inputs.model import ModelShape
from simulator.inputs.parameters import count_parameters

# Beyond it a size is a typing error.
MOST_PARAMETERS = 10**15

ModelLike = str | Path | ModelShape
GpuLike = str | Path | HardwareProfile


def as_model(model: ModelLike, kv_heads: int | None = None) -> ModelShape:
    """Return a model's shape from a preset's name, the path of a config.json, or a shape.

    Raises
    ------
    ModelError
        If there is none, it is wrong, or it is larger than any model is.
    """
    from simulator.inputs.presets import load_model

    if not isinstance(model, ModelShape):
        shape = load_model(model, kv_heads=kv_heads)
    else:
        shape = model if kv_heads is None else model.with_kv_heads(kv_heads)
    parameters = count_parameters(shape).total
    if parameters > MOST_PARAMETERS:
        raise ModelError(
            f"{shape.name}: {parameters:.3g} parameters, more than any model has; check its sizes"
        )
    return shape


def as_gpu(gpu: GpuLike) -> HardwareProfile:
    """Return a GPU's profile from its id, an alias, a path, or a profile.

    Raises
    ------
    ProfileError
        If there is none, or it is wrong.
    """
    return gpu if isinstance(gpu, HardwareProfile) else load_hardware(gpu)
