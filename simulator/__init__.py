"""Latency and memory-IO answers: whether reading the shared context once pays off.

An analytical latency and memory-IO simulator for transformer decoding with standard and
bifurcated attention. Names are loaded when they are first used, so that importing this package
costs nothing.

>>> import simulator
>>> result = simulator.compare("llama-2-7b", "h100-sxm", samples=16, context_tokens="8K")
>>> result.winner
'bifurcated'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from simulator._version import __version__

if TYPE_CHECKING:
    from simulator.answers.compare import Comparison
    from simulator.answers.estimate import Estimate
    from simulator.answers.generate import Generation
    from simulator.answers.load import Curve
    from simulator.answers.plan import Plan
    from simulator.answers.quality import Quality
    from simulator.answers.scaling import ScalingLaw, fit_scaling_law
    from simulator.answers.studies import Studies, fit_studies
    from simulator.answers.sweep import Sweep, prepare_sweep
    from simulator.answers.tradeoff import Tradeoff
    from simulator.answers.tree import TreePlan
    from simulator.api import compare, estimate, generate, plan, quality, serve, tradeoff, tree
    from simulator.errors import SimulatorError
    from simulator.inputs.hardware import HardwareProfile, load_hardware
    from simulator.inputs.model import ModelShape
    from simulator.inputs.presets import load_model, model_from_flags
    from simulator.inputs.scenario import Scenario, load_scenario
    from simulator.inputs.setup import Setup
    from simulator.inputs.workload import Workload

# Functions that answer, and those that read what is asked about; the classes of both.
__all__ = ["compare", "estimate", "generate", "plan", "quality", "serve", "tradeoff", "tree"]
__all__ += ["fit_scaling_law", "fit_studies", "prepare_sweep"]
__all__ += ["load_hardware", "load_model", "load_scenario", "model_from_flags"]
__all__ += ["Comparison", "Curve", "Estimate", "Generation", "Plan", "Quality", "ScalingLaw"]
__all__ += ["Studies", "Sweep", "Tradeoff", "TreePlan"]
__all__ += ["HardwareProfile", "ModelShape", "Scenario", "Setup", "SimulatorError", "Workload"]
__all__ += ["__version__"]

# By module: its public names.
_NAMES = {
    "simulator.answers.compare": "Comparison",
    "simulator.answers.estimate": "Estimate",
    "simulator.answers.generate": "Generation",
    "simulator.answers.load": "Curve",
    "simulator.answers.plan": "Plan",
    "simulator.answers.quality": "Quality",
    "simulator.answers.scaling": "ScalingLaw fit_scaling_law",
    "simulator.answers.studies": "Studies fit_studies",
    "simulator.answers.sweep": "Sweep prepare_sweep",
    "simulator.answers.tradeoff": "Tradeoff",
    "simulator.answers.tree": "TreePlan",
    "simulator.api": "compare estimate generate plan quality serve tradeoff tree",
    "simulator.errors": "SimulatorError",
    "simulator.inputs.hardware": "HardwareProfile load_hardware",
    "simulator.inputs.model": "ModelShape",
    "simulator.inputs.presets": "load_model model_from_flags",
    "simulator.inputs.scenario": "Scenario load_scenario",
    "simulator.inputs.setup": "Setup",
    "simulator.inputs.workload": "Workload",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
