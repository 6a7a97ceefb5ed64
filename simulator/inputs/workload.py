"""The sizes of a decode step: samples, context, prompts and so on."""

import math
from collections.abc import Collection, Mapping
from typing import Annotated, Any

from simulator.errors import WorkloadError, unknown
from simulator.inputs.files import read_count
from simulator.inputs.record import Frozen, Rules
from simulator.inputs.tree import Level, read_tree, tree_text
from simulator.numeric import Numeric, minimum

# A larger size is a typing error: no card can hold a thousandth of either.
LARGEST_COUNT = 10**9
LARGEST_TOKENS = 10**15
# Tokens that each sample of a whole request generates, where nothing else is said.
DEFAULT_OUTPUT_TOKENS = 256

Count = Annotated[int, Rules(before=read_count, ge=0, le=LARGEST_COUNT)]
AtLeastOne = Annotated[int, Rules(before=read_count, ge=1, le=LARGEST_COUNT)]
# A mean, such as 2.4 of 4 drafted tokens.
Accepted = Annotated[float, Rules(ge=1, le=LARGEST_COUNT)]


def one_of_each(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Return sizes as given, with one sample of each prompt where only prompts are given.

    Whoever says a batch size means so many sequences, as engines' options do.

    >>> one_of_each({"prompts": 16}), one_of_each({"prompts": 16, "samples": 2})
    ({'prompts': 16, 'samples': 1}, {'prompts': 16, 'samples': 2})
    """
    return {**sizes, "samples": 1} if "prompts" in sizes and "samples" not in sizes else {**sizes}


class Workload(Frozen):
    """The sizes of one decode step, or of many: see :meth:`grid`.

    Attributes
    ----------
    context_tokens
        Tokens of the shared context, m_c. With a ``tree``, of a path from root to sample.
    samples
        Sequences sampled from each context, b.
    prompts
        Distinct contexts decoded together, P. With a ``tree``, the nodes of its last level.
    decoded_tokens
        Decoded tokens of each sample, m_d, including the one being processed.
    query_tokens
        Tokens of each sample processed in one step, n; more than one is speculative or multi-token
        decoding.
    accepted_tokens
        Tokens of the n that each sample keeps per step, on average. Tokens per second, costs and
        the steps of a whole request depend on it; a step's time does not.
    tree
        The prefix tree of the prompts' contexts: levels from the root down, or a text such as
        ``system=2K,problem=512x8``. Empty if they share nothing, the same as one level.
    """

    context_tokens: Count = 8192
    samples: AtLeastOne = 16
    prompts: AtLeastOne = 1
    decoded_tokens: Count = 64
    query_tokens: AtLeastOne = 1
    accepted_tokens: Accepted = 1
    tree: tuple[Level, ...] = ()

    @classmethod
    def grid(cls, **sizes: Any) -> "Workload":
        """Return many workloads as one, with float64 arrays as sizes that broadcast together.

        If each array has its own axis, they span their full grid, and work that does not depend on
        an axis is not repeated along it. Only the names are checked.

        Raises
        ------
        WorkloadError
            If a size has an unknown name.
        """
        for name in sizes:
            if name not in cls.fields:
                raise WorkloadError(unknown("size", name, cls.fields))
        return cls.unchecked(**sizes)

    @property
    def sequences(self) -> Numeric:
        """Sequences decoded together, P b."""
        return self.prompts * self.samples

    @property
    def tokens(self) -> Numeric:
        """Tokens that pass through every layer in one step, P b n."""
        return self.sequences * self.query_tokens

    @property
    def forward_tokens(self) -> Numeric:
        """Tokens that one step gains over all samples of all prompts.

        >>> Workload(samples=16, query_tokens=4, accepted_tokens=2.5).forward_tokens
        40.0
        """
        return self.sequences * minimum(self.accepted_tokens, self.query_tokens)

    def splitting(self, names: Collection[str]) -> "Workload":
        """Return the workload with only these levels of its tree split.

        Raises
        ------
        WorkloadError
            If there is no such level.
        """
        known = [level.name for level in self.tree]
        for name in names:
            if name not in known:
                raise WorkloadError(unknown("level", name, known))
        levels = [level.but(split=level.name in names) for level in self.tree]
        return self.but(tree=tuple(levels))

    def as_dict(self, **left_out: bool) -> dict[str, Any]:
        """Return the sizes by name, with the tree as text."""
        sizes = super().as_dict(**left_out)
        return sizes | ({"tree": tree_text(self.tree)} if "tree" in sizes else {})

    @classmethod
    def _prepared(cls, data: Any) -> Any:
        """Read the tree, and derive context length and prompts from it."""
        if not isinstance(data, Mapping) or "tree" not in data:
            return data
        levels = read_tree(data["tree"]) if data["tree"] else ()
        if not levels:
            return {**data, "tree": ()}
        sizes = {
            "context_tokens": sum(level.tokens for level in levels),
            "prompts": math.prod(level.branches for level in levels),
        }
        for name, size in sizes.items():
            given = data.get(name, size)
            if read_count(given) != size:
                raise ValueError(f"{name} = {given}, but the tree makes it {size}; leave it out")
        return {**data, **sizes, "tree": levels}

    def _check(self) -> None:
        """Refuse impossible steps, and sizes whose products are not exact in float64."""
        if self.accepted_tokens > self.query_tokens:
            raise ValueError(
                f"accepted_tokens = {self.accepted_tokens:g} is more than query_tokens = "
                f"{self.query_tokens}: a step cannot accept what it does not process"
            )
        tokens = self.context_tokens + self.decoded_tokens + self.query_tokens
        if self.prompts * self.samples * tokens > LARGEST_TOKENS:
            raise ValueError(
                f"prompts x samples x tokens = {self.prompts * self.samples * tokens:.3g} "
                f"is more than {LARGEST_TOKENS:.0e}"
            )
