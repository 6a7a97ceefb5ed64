"""Given inputs of a kernel in every layout of caches, as an engine would store them."""

from torch import Tensor

from simulator.evidence.kernels import Layout
from simulator.evidence.kernels.inputs import Inputs, call_of
from simulator.evidence.kernels.layout import packed_cache, page_pool, parts, rebuild


def lay_out(layout: Layout, *inputs: Tensor) -> Inputs:
    """Arrange the five inputs of a kernel as an engine would store them.

    Under ``copies`` the query is ``[prompts * samples, 1, ...]``, and so is every cache; the
    kernel's output, viewed like the original query, is the same.

    Raises
    ------
    KernelError
        If the tensors do not match.
    """
    call = call_of(*inputs)
    query, context_keys, context_values, decoded_keys, decoded_values = inputs
    join = {"copies": rebuild, "packed": packed_cache, "paged": page_pool}.get(layout)
    if join is None:
        return query, context_keys, context_values, decoded_keys, decoded_values
    if layout == "copies":
        query = query.flatten(0, 1).unsqueeze(1)
    sizes = (call.prompts, call.samples, call.context_tokens, call.decoded_tokens)
    (keys, own_keys), (values, own_values) = (
        parts(join(*each), layout, sizes)
        for each in ((context_keys, decoded_keys), (context_values, decoded_values))
    )
    return query, keys, values, own_keys, own_values
