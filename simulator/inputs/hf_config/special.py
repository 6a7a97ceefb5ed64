"""Rules that a table cannot hold: one small function each, named after the family or the rule."""

from collections.abc import Callable
from typing import Any

from simulator.inputs.hf_config.reader import ConfigReader, Key

KvRule = Callable[[ConfigReader, int], int]


def grouped(default: int | None) -> KvRule:
    """KV heads of the file; where the key is absent, ``default`` or as many as heads (None)."""

    def rule(reader: ConfigReader, heads: int) -> int:
        # A null means as many as heads, whatever the class default.
        return reader.optional("num_key_value_heads", default, minimum=1) or heads

    return rule


def multi_head(_reader: ConfigReader, heads: int) -> int:
    """Give every head a KV head: the family knows nothing else."""
    return heads


def bigcode_kv_heads(reader: ConfigReader, heads: int) -> int:
    """GPT-BigCode: one KV head unless ``multi_query`` is false."""
    return 1 if reader.flag(Key("multi_query", default=True)) else heads


def falcon_kv_heads(reader: ConfigReader, heads: int) -> int:
    """Falcon: ``num_kv_heads`` counts in the new architecture only; Falcon-7B's file says 71."""
    if reader.flag(Key("new_decoder_architecture")):
        return grouped(None)(reader, heads)
    return bigcode_kv_heads(reader, heads)


def no_shared_expert(_reader: ConfigReader) -> int:
    """Every expert is routed."""
    return 0


def shared_expert_of(default: int) -> Callable[[ConfigReader], int]:
    """Qwen2-MoE: one shared expert with a width of its own."""

    def rule(reader: ConfigReader) -> int:
        return reader.optional("shared_expert_intermediate_size", default) or 0

    return rule


def shared_experts(*, count: int, size: int) -> Callable[[ConfigReader], int]:
    """DeepSeek: ``n_shared_experts`` of a routed expert's width, side by side."""

    def rule(reader: ConfigReader) -> int:
        shared = reader.optional("n_shared_experts", count) or 0
        return shared * reader.size("moe_intermediate_size", size)

    return rule


def shared_expert_like_routed(reader: ConfigReader) -> int:
    """Llama 4: one shared expert as wide as a routed one."""
    return reader.size("intermediate_size")


def nothing(_reader: ConfigReader) -> dict[str, Any]:
    """Change nothing: the table says it all."""
    return {}


def phi(reader: ConfigReader) -> dict[str, Any]:
    """Phi: optional norms on each head's queries and keys."""
    return {"qk_norm": "head"} if reader.flag(Key("qk_layernorm")) else {}


def cohere(reader: ConfigReader) -> dict[str, Any]:
    """Command-R: optional norms on queries and keys, with weights for each head."""
    return {"qk_norm": "all"} if reader.flag(Key("use_qk_norm")) else {}


def falcon(reader: ConfigReader) -> dict[str, Any]:
    """Falcon: how many norms a layer has, and rotary encoding or ALiBi."""
    norms = 2
    if reader.flag(Key("parallel_attn", default=True)):
        new = reader.flag(Key("new_decoder_architecture"))
        norms = reader.size("num_ln_in_parallel_attn", 2 if new else 1)
    return {"norms_per_layer": norms, "rotary": not reader.flag(Key("alibi"))}


def opt(reader: ConfigReader) -> dict[str, Any]:
    """OPT: its smallest models narrow the token table (350m) or leave norms without weights."""
    changes: dict[str, Any] = {}
    hidden = reader.size("hidden_size")
    width = reader.size("word_embed_proj_dim", hidden)
    if width != hidden:
        changes["embedding_size"] = width
    before = reader.flag(Key("do_layer_norm_before", default=True))
    if not before or reader.flag(Key("_remove_final_layer_norm")):
        changes["extra_norms"] = 0
    if not reader.flag(Key("layer_norm_elementwise_affine", default=True)):
        changes["norm_weight"] = False
    return changes
