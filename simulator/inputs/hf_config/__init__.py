"""Read a Hugging Face ``config.json``, whatever the model, without the transformers package.

A key that is absent means the default of that model's own configuration class, so there is one
small table for each ``model_type`` (``families.py``) and shared rules around it.
"""

from simulator.inputs.hf_config.families import FAMILIES
from simulator.inputs.hf_config.shape import shape_from_config

__all__ = ["FAMILIES", "shape_from_config"]
