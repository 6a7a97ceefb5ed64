"""Keys that tell a model's architecture, and the known type that reads most of a file's keys.

A model_type that is not known, or one that ``--assume`` names, must not read a file of another
architecture as if the keys it does not know were not there: a mixture of experts without its
experts looks ten times smaller. No type lists the keys it understands: reading a file shows them.
"""

import re
from collections import UserDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from simulator.errors import ModelError
from simulator.inputs.hf_config.reading import ConfigReader, ModelType, read_fields

# The parts that make another architecture, and their keys. A type has a part if it asks for one of
# the part's keys.
PARTS: dict[str, str] = {
    "experts": r"(?<!shared_)experts$",
    "a latent cache": r"_lora_rank$|^qk_(nope|rope)_head_dim$",
    "states of constant size": r"^(ssm|mamba|linear|conv|lru|time_step)\d?_|^state_size$",
    "sparse attention": r"^index_",
    "compressed caches": r"^compress_ra",
    "layers of several kinds": (
        r"^block_(configs|types)$|^layers_block_type$|^hybrid_|^layer_types$"
        r"|^cross_attention_layers$|^attn_(layer|type)"
    ),
    "heads that differ by layer": (
        r"^(swa|global|num_global)_\w*head(s|_dim)$|heads_per_layer$|^per_layer_config$"
    ),
    "caches that layers share": r"^num_kv_shared_layers$",
    "inputs of each layer": r"_per_layer_input$",
    "shared experts": r"shared_experts?(_intermediate_size)?$",
    "layers without experts": r"^first_k_dense|^num_dense_layers$|^mlp_layer_types$",
    "a number of experts per token": r"experts?_per_tok(en)?$|^moe_topk$|^top_k_experts$",
    "a width of experts": r"(?<!shared_)expert_\w*size$|^moe_intermediate_size$",
}
_OF_EXPERTS = ("a number of experts per token", "a width of experts")
# Parts that a message names.
_NAMED = 3


class Watched(UserDict[str, Any]):
    """The keys of a file, and which of them a reader asked for.

    Attributes
    ----------
    asked
        Every key that was looked up, in the file or not.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.asked: set[str] = set()
        super().__init__(data)

    def __getitem__(self, key: str) -> Any:
        """Return a value, and note that its key was asked for."""
        self.asked.add(key)
        return self.data[key]

    def __contains__(self, key: object) -> bool:
        """Return whether the file has a key, and note that it was asked for."""
        self.asked.add(str(key))
        return key in self.data


def telling_keys(data: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the keys of a file that tell its architecture, by part.

    Examples
    --------
    >>> telling_keys({"hidden_size": 64, "n_routed_experts": 8, "kv_lora_rank": None})
    {'experts': ['n_routed_experts']}
    """
    stated = [str(key) for key, value in data.items() if _tells(value)]
    found = {
        part: keys
        for part, pattern in PARTS.items()
        if (keys := [key for key in stated if re.search(pattern, key)])
    }
    # Some files without experts keep their class's keys of experts.
    if "experts" not in found or data.get("is_moe") is False:
        for part in ("experts", "shared experts", "layers without experts", *_OF_EXPERTS):
            found.pop(part, None)
    return found


def _tells(value: Any) -> bool:
    """Return whether a value is a size, or a list, not one of layers that are all alike."""
    if isinstance(value, list):
        return any(item != value[0] for item in value)
    if isinstance(value, bool):
        return False
    return value > 0 if isinstance(value, int) else isinstance(value, Mapping) and bool(value)


def phrase(parts: Mapping[str, list[str]]) -> str:
    """Name parts, each with its shortest key.

    Examples
    --------
    >>> phrase({"experts": ["num_local_experts", "num_experts"], "a latent cache": ["q_lora_rank"]})
    'experts (num_experts), a latent cache (q_lora_rank)'
    """
    implied = _OF_EXPERTS if "experts" in parts else ()
    named = [f"{part} ({min(parts[part], key=len)})" for part in parts if part not in implied]
    return ", ".join(named[:_NAMED]) + (" ..." if len(named) > _NAMED else "")


class Reading(NamedTuple):
    """A file as a model type reads it.

    Attributes
    ----------
    fields
        Fields of the shape, notes included.
    asked
        The keys that the type asked for.
    lacking
        Parts that the file states and the type has not, with their keys.
    unstated
        Parts that the type has by default and the file does not state.
    """

    fields: dict[str, Any]
    asked: set[str]
    lacking: dict[str, list[str]]
    unstated: list[str]

    @property
    def misfit(self) -> str:
        """Why the type cannot hold what the file states; empty if it can."""
        if self.lacking:
            return f"has no {phrase(self.lacking)}"
        return f"has {self.unstated[0]}, and the file states none" if self.unstated else ""


def read_as(kind: ModelType, reader: ConfigReader) -> Reading:
    """Read a file as a model type, and compare the parts of both.

    Raises
    ------
    ModelError
        If the type cannot read the file.
    """
    watched = Watched(reader.data)
    fields = read_fields(kind, replace(reader, data=watched))
    told = telling_keys(reader.data)
    experts = fields.get("experts")
    made = dict.fromkeys(("experts", *_OF_EXPERTS), experts)
    made["shared experts"] = experts and experts["shared_intermediate_size"]
    made["a latent cache"] = fields.get("latent")
    # A type that asks for keys of these always has them.
    made |= {"states of constant size": True, "sparse attention": True}
    return Reading(
        fields,
        watched.asked,
        lacking={part: keys for part, keys in told.items() if watched.asked.isdisjoint(keys)},
        unstated=[
            part
            for part, value in made.items()
            if value
            and part not in told
            and any(re.search(PARTS[part], key) for key in watched.asked)
        ],
    )


def nearest_type(types: Mapping[str, ModelType], reader: ConfigReader) -> str | None:
    """Return the type that reads most of a file's keys, None if none has all its parts.

    Parameters
    ----------
    types
        Known types; of equals the first is taken.
    reader
        The file.
    """
    keys = set(reader.data)
    read: dict[str, int] = {}
    for name, kind in types.items():
        try:
            found = read_as(kind, replace(reader, sizes=kind.sizes if reader.outer else {}))
        except ModelError:
            continue
        if not found.misfit:
            read[name] = len(found.asked & keys)
    return max(read, key=read.__getitem__, default=None)
