"""The paper on one page: a decode step's reads and FLOPs, and a lower bound of its time.

Standard attention reads the shared context once per sample, bifurcated attention once for all
(arXiv:2403.08845). ``estimate(kernel="ideal", kv_layout="copies", constants="peak")`` agrees.
"""

from typing import NamedTuple


class Sizes(NamedTuple):
    """Samples of one context, and a transformer with RMSNorm, rotary positions and a gated MLP."""

    b: int  # samples
    m_c: int  # tokens of the context, which all samples share
    m_d: int  # decoded tokens of each sample
    g: int  # KV heads: g = h multi-head, 1 < g < h multi-group, g = 1 multi-query
    k: int  # head width
    h: int  # query heads
    L: int  # layers
    d: int  # hidden size
    f: int  # inner width of the MLP
    v: int  # vocabulary
    s: int = 2  # bytes of a weight, an activation or a cached value: 2 in bf16


def kv_bytes(sizes: Sizes, attention: str) -> int:
    """Return the bytes of K and V that one layer reads: equation 5 or 6 of the paper, times 2 s."""
    b, m_c, m_d, g, k, *_, s = sizes
    return 2 * s * g * k * (m_c + b * m_d if attention == "bifurcated" else b * (m_c + m_d))


def decode_step(sizes: Sizes, attention: str) -> list[tuple[str, int, int, int]]:
    """List the operations of a step: name, number of calls, FLOPs and bytes per call."""
    b, m_c, m_d, g, k, h, L, d, f, v, s = sizes
    kv = kv_bytes(sizes, attention)

    def product(m: int, n: int) -> tuple[int, int]:  # [b, m] x [m, n]: reads both, writes [b, n]
        return 2 * b * m * n, s * (b * m + m * n + b * n)

    return [
        ("embedding",         1, 0, s * 2 * b * d + 8 * b),  # token ids are int64
        ("attention norm",    L, 0, s * (4 * b * d + d)),  # adds the residual: two rows in, two out
        ("QKV projection",    L, *product(d, (h + 2 * g) * k)),
        ("rotary",            L, 0, s * 2 * b * (h + g) * k),  # queries and keys, read and written
        ("cache write",       L, 0, s * 2 * b * 2 * g * k),  # the new keys and values
        ("attention",         L, 4 * b * h * k * (m_c + m_d), s * 2 * b * h * k + kv),
        ("output projection", L, *product(h * k, d)),
        ("MLP norm",          L, 0, s * (4 * b * d + d)),
        ("MLP gate and up",   L, *product(d, 2 * f)),
        ("MLP activation",    L, 0, s * 3 * b * f),  # silu(gate) times up
        ("MLP down",          L, *product(f, d)),
        ("final norm",        1, 0, s * (4 * b * d + d)),
        ("LM head",           1, *product(d, v)),
        ("sampling",          1, 0, s * b * v + 2 * 4 * b * v + 8 * b),  # softmax in float32
    ]  # fmt: skip


def roofline_s(step: list[tuple[str, int, int, int]], gpu: tuple[float, float]) -> float:
    """Return a step's time on a GPU of (bytes/s, FLOP/s): the slower bounds each operation."""
    seconds = 0.0
    for _, times, flops, moved_bytes in step:
        seconds += times * max(moved_bytes / gpu[0], flops / gpu[1])
    return seconds


if __name__ == "__main__":
    llama = Sizes(b=16, m_c=8192, m_d=64, g=32, k=128, h=32, L=32, d=4096, f=11008, v=32000)
    for way in ("standard", "bifurcated"):
        kv, step = kv_bytes(llama, way), roofline_s(decode_step(llama, way), (3350e9, 989.4e12))
        print(f"Llama-2-7B on H100, {way:10} KV {32 * kv / 1e9:5.2f} GB  step {step * 1e3:5.2f} ms")
