"""Typed reads of one config; every complaint names the file, the key and the value."""

import difflib
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from simulator.errors import ModelError

# Larger than any model's; a typing error must not make a list of a billion layers.
LARGEST_SIZE = 10**9
LARGEST_LAYERS = 10**4

# One quantity, several names. The first is the common one; it names the quantity in messages when
# the file has none of them.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden_size": ("hidden_size", "n_embd", "n_embed", "d_model"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads"),
    "num_key_value_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    "intermediate_size": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
    "max_position_embeddings": ("max_position_embeddings", "n_positions", "n_ctx"),
    "num_experts": ("num_experts", "num_local_experts", "n_routed_experts"),
    "num_experts_per_tok": ("num_experts_per_tok", "experts_per_token"),
    "dtype": ("dtype", "torch_dtype"),
}


class Key(NamedTuple):
    """A switch in the file, and what its absence means."""

    name: str
    default: bool = False


Flag = bool | Key


class ConfigReader:
    """One config, with the class defaults of its model type.

    Parameters
    ----------
    data
        The language model's keys.
    where
        The file, named first in every message.
    outer
        The whole file where ``data`` is its ``text_config``; a key that says nothing about sizes,
        such as the dtype, may stand there.
    sizes
        Class defaults of the sizes a file must otherwise state.
    """

    def __init__(
        self,
        data: Mapping[str, Any],
        *,
        where: str,
        outer: Mapping[str, Any] | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        self.data = data
        self.where = where
        self.outer = outer or {}
        self.sizes = sizes or {}

    def fail(self, message: str) -> NoReturn:
        """Raise the one-line error."""
        raise ModelError(f"{self.where}: {message}")

    def lookup(self, key: str) -> tuple[str, Any]:
        """Return the name under which a quantity stands in the file, and its value.

        Of several names one with a value wins over a null. A quantity that is not there has the
        value ``...``, to be told from a null.
        """
        found = [name for name in SYNONYMS.get(key, (key,)) if name in self.data]
        for name in found:
            if self.data[name] is not None:
                return name, self.data[name]
        return (found[0], None) if found else (key, ...)

    def size(self, key: str, default: int | None = None, *, largest: int = LARGEST_SIZE) -> int:
        """Return a size above zero; null is as good as absent.

        Raises
        ------
        ModelError
            If the value is not a whole number above zero, or is absent and has no default.
        """
        name, value = self.lookup(key)
        if value is None or value is ...:
            fallback = self.sizes.get(key) if default is None else default
            if fallback is None:
                self.fail(f"{name} is missing{self._resembling(name)}")
            return fallback
        return self._whole(name, value, 1, largest)

    def optional(self, key: str, default: int | None, *, minimum: int = 0) -> int | None:
        """Return a number that may be null; ``default`` only where the key is absent."""
        name, value = self.lookup(key)
        if value is ...:
            return default
        return None if value is None else self._whole(name, value, minimum, LARGEST_SIZE)

    def flag(self, flag: Flag) -> bool:
        """Return a switch: fixed by the class, or read with the class's default."""
        if not isinstance(flag, Key):
            return flag
        value = self.data.get(flag.name)
        if value is None:
            return flag.default
        if not isinstance(value, bool):
            self.fail(f"{flag.name} = {reprlib.repr(value)} must be true or false")
        return value

    def anywhere(self, key: str) -> Any:
        """Return a value from the language model's keys or else from the outer ones."""
        value = self.lookup(key)[1]
        if value is None or value is ...:
            value = ConfigReader(self.outer, where=self.where).lookup(key)[1]
        return None if value is ... else value

    def items(self, key: str, *, length: int | None = None) -> Sequence[Any] | None:
        """Return a list of the file, or None where it is absent or null."""
        value = self.data.get(key)
        if value is None:
            return None
        if not isinstance(value, list | tuple):
            self.fail(f"{key} = {reprlib.repr(value)} must be a list")
        if length is not None and len(value) != length:
            self.fail(f"{key} has {len(value)} entries for {length} layers")
        return value

    def _whole(self, name: str, value: Any, minimum: int, largest: int) -> int:
        """Check that a value is a whole number in range."""
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(f"{name} = {reprlib.repr(value)} must be a whole number")
        if value < minimum:
            self.fail(f"{name} = {reprlib.repr(value)} must be at least {minimum}")
        if value > largest:
            self.fail(f"{name} = {reprlib.repr(value)} is larger than any model's ({largest:,})")
        return value

    def _resembling(self, name: str) -> str:
        """Return a hint at a key that looks like a mistyped ``name``."""
        keys = [key for key in self.data if isinstance(key, str)]
        close = difflib.get_close_matches(name, keys, n=1, cutoff=0.8)
        return f"; did you mean it by {close[0]!r}?" if close else ""
