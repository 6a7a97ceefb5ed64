"""The paper's own formulas, in its own symbols, in elements per layer.

They are kept as they are printed so that a reader can lay the paper beside them; the accounts in
:mod:`simulator.counts.attention` are built for real kernels and agree with these where they should
(a test holds them to it).

References
----------
B. Athiwaratkun et al., "Bifurcated Attention: Accelerating Massively Parallel Decoding with Shared
Prefixes in LLMs", arXiv:2403.08845v2, 2024.
"""

from simulator.numeric import Numeric


def kv_io_standard(*, g: Numeric, k: Numeric, b: Numeric, m_c: Numeric, m_d: Numeric) -> Numeric:
    """Elements of K (or of V) that standard attention reads.

    Equation 5 of the paper: ``g k b (m_c + m_d)``.

    >>> 2 * 32 * 2 * kv_io_standard(g=32, k=128, b=16, m_c=8192, m_d=64)  # Llama-2-7B, bf16
    69256347648
    """
    return g * k * b * (m_c + m_d)


def kv_io_bifurcated(*, g: Numeric, k: Numeric, b: Numeric, m_c: Numeric, m_d: Numeric) -> Numeric:
    """Elements of K (or of V) that bifurcated attention reads.

    Equation 6 of the paper: ``g k (m_c + b m_d)``.

    >>> 2 * 32 * 2 * kv_io_bifurcated(g=32, k=128, b=16, m_c=8192, m_d=64)  # Llama-2-7B, bf16
    4831838208
    """
    return g * k * (m_c + b * m_d)


def full_io_standard(
    *, h: Numeric, g: Numeric, k: Numeric, b: Numeric, n: Numeric, m_c: Numeric, m_d: Numeric
) -> Numeric:
    """Elements that the two products of standard attention move: <q,K>, then <w,V>.

    Appendix E.2: ``b h n k + b g m k + b h n m`` and ``b h n m + b g m k + b n d``, d = h k.
    """
    m, d = m_c + m_d, h * k
    query_key = b * h * n * k + b * g * m * k + b * h * n * m
    weight_value = b * h * n * m + b * g * m * k + b * n * d
    return query_key + weight_value


def full_io_bifurcated(
    *, h: Numeric, g: Numeric, k: Numeric, b: Numeric, n: Numeric, m_c: Numeric, m_d: Numeric
) -> Numeric:
    """Elements that the products of bifurcated attention move, as Appendix E.2 counts them.

    ``b h n k + g m_c k + b g m_d k + b h n m`` and ``b h n m + g m_c k + b g m_d k + b n d``: the
    queries and the output are counted once although each of the two parts touches them.
    """
    m, d = m_c + m_d, h * k
    query_key = b * h * n * k + g * m_c * k + b * g * m_d * k + b * h * n * m
    weight_value = b * h * n * m + g * m_c * k + b * g * m_d * k + b * n * d
    return query_key + weight_value


def attention_flops(
    *, h: Numeric, k: Numeric, b: Numeric, n: Numeric, m_c: Numeric, m_d: Numeric
) -> Numeric:
    """FLOPs of both products, two per multiply-add: the same for standard and bifurcated.

    Section 4: ``2 b n m d`` for <q,K> and as much for <w,V>, d = h k.
    """
    return 4 * b * h * n * k * (m_c + m_d)
