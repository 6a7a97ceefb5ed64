"""How a model is laid over GPUs: what is split, and what is held by each."""

from simulator.inputs.record import Frozen
from simulator.inputs.workload import AtLeastOne, Workload
from simulator.numeric import Numeric, ceil_div, minimum


class Parallelism(Frozen):
    """How a model is laid over GPUs, in the words of serving engines.

    Attributes
    ----------
    tensor_parallel
        GPUs over which heads, and columns of MLPs and of the head, are split.
    data_parallel
        Groups of so many GPUs, each with requests and caches of its own, that share the experts:
        vLLM's ``--data-parallel-size``; SGLang's ``--dp`` with ``--enable-dp-attention``, whose
        ``--tp`` counts the GPUs of all groups.
    expert_parallel
        Parts into which whole experts are dealt out over the GPUs of a stage; the GPUs of one part
        split the columns of its experts. vLLM's ``--enable-expert-parallel`` makes it
        ``tensor_parallel x data_parallel``.
    pipeline_parallel
        Stages, each with a part of the layers.
    """

    tensor_parallel: AtLeastOne = 1
    data_parallel: AtLeastOne = 1
    expert_parallel: AtLeastOne = 1
    pipeline_parallel: AtLeastOne = 1

    @property
    def gpus(self) -> int:
        """GPUs of all groups and stages."""
        return self.expert_gpus * self.pipeline_parallel

    @property
    def words(self) -> str:
        """The parallelism in the usual abbreviations, without what is 1.

        >>> Parallelism(tensor_parallel=4, pipeline_parallel=2).words, Parallelism().words
        ('TP4 PP2', '')
        """
        sizes = (getattr(self, field) for field in Parallelism.fields)
        named = zip(("TP", "DP", "EP", "PP"), sizes, strict=True)
        return " ".join(f"{name}{size}" for name, size in named if size > 1)

    @property
    def expert_gpus(self) -> int:
        """GPUs of a stage, over which its experts are laid."""
        return self.tensor_parallel * self.data_parallel

    @property
    def at_once(self) -> int:
        """Prompts that are at work at the same time: one in each stage of each group."""
        return self.data_parallel * self.pipeline_parallel

    @property
    def expert_slices(self) -> int:
        """GPUs over which the columns of an expert are split."""
        return self.expert_gpus // self.expert_parallel

    def held(self, work: Workload) -> Workload:
        """Return the sizes of what the fullest group holds.

        >>> Parallelism(data_parallel=4).held(Workload(prompts=10)).prompts
        3
        """
        return _part(work, self.data_parallel)

    def passing(self, work: Workload) -> Workload:
        """Return the sizes of what goes through a stage at once, in the fullest group.

        The prompts of a group go through in as many parts as there are stages, one behind the
        other, so that every stage is at work. The samples of a prompt stay together.
        """
        return _part(work, self.at_once)


def _part(work: Workload, parts: int) -> Workload:
    """Return the largest of equal parts of a workload's prompts, or of the branches of its tree."""
    if parts == 1:
        return work
    if not work.tree:
        return work.but(prompts=ceil_div(work.prompts, parts))
    left: Numeric = parts
    prompts: Numeric = 1
    levels = []
    for level in work.tree:
        divided = minimum(level.branches, left)
        branches = ceil_div(level.branches, divided)
        left, prompts = ceil_div(left, divided), prompts * branches
        levels.append(level.but(branches=branches))
    return work.but(prompts=prompts, tree=tuple(levels))
