# ruff: noqa: E501 - the lines of a page are as long as its sentences
"""Write docs/paper_claims.md: python tools/refresh.py.

The page retells the argument of Athiwaratkun et al. claim by claim. What commands print on it is
filled in by tools/refresh.py; the figures between are computed here. Of measured times a few single
figures are quoted with their source. ``python tools/paper_claims.py --pictures`` draws its pictures
anew (needs kaleido and a browser).
"""

import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import simulator
from simulator.answers.compare import Comparison
from simulator.evidence.predict.validate import validate
from simulator.evidence.rows.reading import load
from simulator.units import MILLISECOND

PATH = Path(__file__).resolve().parent.parent / "docs" / "paper_claims.md"
PICTURES = {
    "paper_latency.svg": "latency-samples -m llama-2-7b --context 8K",
    "paper_equal_quality.svg": "equal-quality -m paper-1b-mha -g a100-sxm-40gb --context 2K",
}
BLOCK = re.compile(r"^```console\n.*?^```$", re.MULTILINE | re.DOTALL)

Code = Literal["flash2", "sdpa compiled", "rebuilt compiled", "bifurcated", "bifurcated compiled"]

# Tables "MHA 8K Context" and "GQA with 8K context length" of the README of
# bifurcated-attn-icml-2024/gpt-fast-parallel-sampling @ 2e10003: Mistral-7B on one H100, 8192 tokens
# of context. Whether the KV heads are repeated to all heads on every step (its "MHA"), the code, the
# samples, and the measured step. [ms]
QUOTED: Mapping[tuple[bool, Code, int], float] = {
    (True, "sdpa compiled", 16): 26.192,
    (True, "bifurcated compiled", 16): 12.595,
    (True, "bifurcated compiled", 32): 13.471,
    (True, "bifurcated compiled", 64): 15.355,
    (True, "bifurcated compiled", 1024): 81.146,
    (True, "rebuilt compiled", 32): 120.395,
    (True, "flash2", 16): 109.647,
    (True, "flash2", 32): 205.578,
    (True, "bifurcated", 16): 31.707,
    (True, "bifurcated", 32): 31.788,
    (False, "flash2", 16): 22.31,
    (False, "flash2", 32): 26.061,
    (False, "bifurcated", 16): 30.265,
    (False, "bifurcated", 32): 29.755,
}
_KERNELS: Mapping[Code, tuple[str, str, str, str]] = {
    "flash2": ("standard", "flash2", "copies", "eager"),
    "sdpa compiled": ("standard", "sdpa-math", "copies", "compiled"),
    "rebuilt compiled": ("standard", "sdpa-math", "rebuilt", "compiled"),
    "bifurcated": ("bifurcated", "einsum", "shared", "eager"),
    "bifurcated compiled": ("bifurcated", "einsum", "shared", "compiled"),
}


@dataclass(frozen=True)
class Ratio:
    """Two quoted cells and what they come to."""

    what: str
    standard: tuple[bool, Code, int]
    bifurcated: tuple[bool, Code, int]

    @property
    def measured(self) -> float:
        """Measured speed-up."""
        return QUOTED[self.standard] / QUOTED[self.bifurcated]

    @property
    def predicted(self) -> float:
        """Speed-up by the account of the paper's code."""
        return predicted_ms()[self.standard] / predicted_ms()[self.bifurcated]


HEADLINES = (
    Ratio(
        "16 samples, compiled: SDPA over copies, the last of its cells that ran",
        (True, "sdpa compiled", 16),
        (True, "bifurcated compiled", 16),
    ),
    Ratio(
        "16 samples, eager: FlashAttention-2 over copies",
        (True, "flash2", 16),
        (True, "bifurcated", 16),
    ),
    Ratio(
        "32 samples, eager: FlashAttention-2 over copies, likewise the last",
        (True, "flash2", 32),
        (True, "bifurcated", 32),
    ),
    Ratio(
        "32 samples, compiled: SDPA over a cache that is concatenated on every step",
        (True, "rebuilt compiled", 32),
        (True, "bifurcated compiled", 32),
    ),
    Ratio(
        "32 samples, the best of each: eager FlashAttention-2 against compiled bifurcated",
        (True, "flash2", 32),
        (True, "bifurcated compiled", 32),
    ),
)
GROUPED = (
    Ratio(
        "16 samples, 8 KV heads, eager: FlashAttention-2 over copies",
        (False, "flash2", 16),
        (False, "bifurcated", 16),
    ),
    Ratio("32 samples, the same", (False, "flash2", 32), (False, "bifurcated", 32)),
)

PAGE = """# The paper's argument, claim by claim

Athiwaratkun et al., *Bifurcated Attention: Accelerating Massively Parallel Decoding with Shared Prefixes in LLMs* (ICML 2024,
[arXiv:2403.08845](https://arxiv.org/abs/2403.08845)), retold with this tool: what it claims, the command that answers, what
reproduces and what does not. Written by `python tools/refresh.py` with the shipped constants; every command runs as it stands.

Three kinds of figures, kept apart: **counts** follow from shapes and are exact; **predicted** times are this model's, for kernels as
serving engines run them unless said otherwise; **measured** ones were timed by the authors, on one H100 (README of
bifurcated-attn-icml-2024/gpt-fast-parallel-sampling @ 2e10003, March 2024).

| claim | verdict |
| --- | --- |
| [Reading the context once moves g k (m_c + b m_d) elements in place of g k b (m_c + m_d)](#1-the-bytes) | exact |
| [The output is the same, and so are the FLOPs](#2-the-same-output-the-same-flops) | exact |
| [More than 2.1 times as fast at 16 samples, more than 6.2 times at 32](#3-21-and-62-times-as-fast) | {first:.2f} and {second:.2f} measured, from two different baselines; {first_predicted:.2f} and {second_predicted:.2f} predicted |
| [Many samples cost little more than one](#4-many-samples-for-little-more-than-one) | holds while they fit; then logits bind the paper's code |
| [Copies run out of memory, one context does not](#5-what-fits) | holds, cell by cell |
| [It helps grouped queries too](#6-grouped-queries) | not in the authors' own eager tables; yes with fused kernels |
| [A multi-query model of equal quality is about 10 % larger](#7-ten-per-cent-larger) | taken from the paper; fit your own runs |
| [The larger multi-query model is faster where there is much to do](#8-the-larger-model-is-faster-until-the-context-is-read-once) | holds in direction |
| [With bifurcated attention multi-head stays competitive](#8-the-larger-model-is-faster-until-the-context-is-read-once) | holds in direction |

## 1. The bytes

Standard attention reads the cache of every sample, bifurcated attention that of the context once (equations 5 and 6; K and V, all
layers). For Llama-2-7B, 16 samples of 8192 tokens, each with 64 of its own:

```console
$ bifurcate compare -m llama-2-7b -n 16 --context 8K
```

The counts are exact: 32 layers x 2 x 4096 x 16 x (8192 + 64) x 2 bytes = 69.3 GB against 4.83 GB, 14.3 times less. And the table shows what the
ratio is not. The step is {engine_16:.1f} times as fast, not 14.3 times: the weights are read all the same, and launches do not shrink. In the
authors' tables the same ratio of 14.3 came out as {eager_16:.1f} (eager) and {first:.1f} (compiled).

## 2. The same output, the same FLOPs

Splitting the keys and merging by the log-sum-exp is algebra (appendix E.1). Here it is a test: every kernel of this project agrees with float64
softmax attention, and every account with a trace of the kernel, byte for byte (`tests/evidence/test_kernels.py`, [tracing.md](tracing.md)). The
FLOPs stand in both answers:

```sh
bifurcate estimate -m llama-2-7b -n 16 --context 8K --attention standard --json
bifurcate estimate -m llama-2-7b -n 16 --context 8K --attention bifurcated --json
```

Both say {flops:,} FLOP.

## 3. 2.1 and 6.2 times as fast

The abstract says "over 2.1 times when sampling 16 output sequences and more than 6.2 times when sampling 32, at context lengths that exceed
8k tokens on a 7B model that uses multi-head attention". It names neither the GPU nor what is compared. The authors' tables for 8192
tokens on one H100 hold these pairs (standard's step over bifurcated's):

| pair | measured | predicted |
| --- | ---: | ---: |
{headlines}

*Predicted* is the account of the paper's own code, as `bifurcate validate` applies it to such rows. Its "multi-head" model is Mistral-7B with 8 KV
heads, repeated to 32 on every step: standard pays for that repeat too (inferred from bytes and memory limits of the tables).

So 2.1 comes out of compiled code at 16 samples, and 6.2 (a little more than it) of eager code at 32. They cannot be two points of one
curve: twice the samples at most double standard's step, and never shorten bifurcated's, so 2.1 at 16 samples is at most 4.2 at 32. Compiled SDPA
over copies has no cell beyond 16 samples, for two sets of caches no longer fit; the step to 6.2 is a step to another
baseline (inferred).

For a true multi-head model under kernels that engines use, FlashAttention in a CUDA graph on both sides, the same question is:

| Llama-2-7B, 8192 tokens, predicted | 16 samples | 32 samples |
| --- | ---: | ---: |
{engines}

In brackets the interval in which the model's errors leave the speed-up. That is near the headline at 32 samples and above it at 16. Copies
of 32 such contexts do not fit these cards, so the comparison is with a paged pool that stores the context once and reads it for every
sample. The third table of the same kind, Mistral-7B with its 8 KV heads as they are, gives {grouped_16:.1f} and {grouped_32:.1f} on an H100.

## 4. Many samples for little more than one

With the context read once, a further sample adds its own tokens and its logits. Measured, compiled: {b16:.1f} ms at 16 samples, {b32:.1f} at 32, {b64:.1f} at
64, {b1024:.0f} at 1024 (predicted {p16:.1f}, {p32:.1f}, {p64:.1f} and {p1024:.0f}). The growth at the end is not the cache: the paper's code writes the logits of all
samples to memory and reads them back several times, h b (m_c + m_d) elements in each pass, which bifurcation does not reduce. A kernel that
keeps them on the chip does not pay that: the flash kernel of this tool, predicted for Llama-2-7B at 1024 samples, takes {flash:.0f} ms, the paper's einsum
{einsum:.0f} ms.

![Step latency of Llama-2-7B against samples of an 8K context on an H100: standard attention doubles with the samples, bifurcated stays nearly flat](paper_latency.svg)

Such figures are drawn by

```sh
bifurcate plot latency-samples -m llama-2-7b --context 8K -o latency.html
bifurcate plot latency-kernels -m llama-2-7b --context 8K -o kernels.html
```

## 5. What fits

A context copy per sample fills the card before time does. In the authors' tables eager FlashAttention-2 ends at 32 samples and compiled SDPA at 16,
while bifurcated attention runs 1024 samples compiled and 2048 eager. The account of their code has this right in every cell: the
seven that ran out of memory are predicted to, and no other. For an engine:

```console
$ bifurcate plan -m mistral-7b-v0.2 --context 8K -n 64 -g h100-sxm --gpus 1
```

## 6. Grouped queries

Where the model's own KV heads are few, the cache is small and there is less to save. In the authors' table for Mistral-7B with its 8 KV heads
bifurcated attention is *slower* than FlashAttention-2, eager against eager, up to 32 samples of 8192 tokens:

| pair | measured | predicted |
| --- | ---: | ---: |
{grouped}

Both sides wait for the host to launch kernels, and bifurcated attention launches more. The README's wins in that table compare
compiled with eager code. With fused kernels in a CUDA graph launches cost little, and sharing pays from few samples on:

```console
$ bifurcate compare -m mistral-7b-v0.2 -n 16 --context 8K
```

More cells where sharing loses, from other projects, are in [published_signs.md](published_signs.md).

## 7. Ten per cent larger

The paper trains models of 125 M to 13 B parameters in three families and finds smooth scaling laws: the fewer KV heads, the higher the loss
at equal size, so that a multi-query model needs about 1.1 times the parameters for the same quality (sections 5.1 and 5.2). This project
trains nothing and cannot reproduce that; it takes F = 1.10 for multi-query and says so in every answer. `bifurcate scaling` fits the
law to runs of your own, with the error of F ([tradeoff.md](tradeoff.md)). The paper's trade holds for its data (code), its loss and its sizes.

## 8. The larger model is faster, until the context is read once

A pair of the paper's sizes, about 1 B parameters with the multi-query one 10 % larger, on the card of the instances the paper trained on:

```console
$ bifurcate tradeoff -m paper-1b-mha -g a100-sxm-40gb --context 2K -n 16
```

Both of its claims hold in direction. With standard attention on both sides the larger multi-query model is faster nearly everywhere but at few
samples of a short context, where a step is weights and it has more of them (*both standard*). With bifurcated attention on both sides
the border moves to more samples, and what is gained beyond it shrinks (*both bifurcated*): multi-head stays competitive. And a multi-head model
that shares its context, against a multi-query one that does not, wins with many samples of a long context (last line). How
far the border moves depends on the size factor and on each sample's own tokens, which bifurcation does not touch. Nor does it help one
sample, or a few, of a very long context: there the small cache alone saves the reads, and multi-query is as far ahead as before.

![Where the larger multi-query model is faster, over context and samples: nearly everywhere under standard attention, by little under bifurcated attention, and not with many samples if only the multi-head model shares its context](paper_equal_quality.svg)

```sh
bifurcate plot equal-quality -m paper-1b-mha -g a100-sxm-40gb --context 2K -o border.html
```
"""


@cache
def predicted_ms() -> Mapping[tuple[bool, Code, int], float]:
    """Return the steps of the quoted cells by the account of the paper's code. [ms]."""
    head = "gpu,model,expand_kv,weights_dtype,tensor_parallel,context_tokens,samples,attention,kernel,kv_layout,execution,status,step_ms"
    lines = [
        f"H100,mistral-7b,{int(repeated)},bf16,1,8192,{samples},{','.join(_KERNELS[code])},ok,{measured}"
        for (repeated, code, samples), measured in QUOTED.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quoted.csv"
        path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
        rows = validate(load([path])).rows.sort_values("line")
    return dict(zip(QUOTED, rows["predicted_step_ms"].tolist(), strict=True))


def _compare(model: str, gpu: str, samples: int) -> Comparison:
    """Return an engine's step at 8192 tokens."""
    return simulator.compare(model, gpu, samples=samples, context_tokens=8192)


def _ratio_rows(ratios: tuple[Ratio, ...]) -> str:
    """Tabulate quoted pairs."""
    return "\n".join(f"| {r.what} | {r.measured:.2f} | {r.predicted:.2f} |" for r in ratios)


def _engine_rows() -> str:
    """Tabulate what engines' kernels would gain."""
    lines = []
    for gpu in ("h100-sxm", "a100-sxm-80gb"):
        cells = []
        for samples in (16, 32):
            both = _compare("llama-2-7b", gpu, samples)
            cells.append(f"{both.speedup:.1f} ({both.speedup_low:.1f} to {both.speedup_high:.1f})")
        lines.append(f"| {both.standard.gpu.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _step_ms(kernel: str, execution: str) -> float:
    """Return the bifurcated step of 1024 samples under a kernel. [ms]."""
    result = simulator.estimate(
        "llama-2-7b",
        samples=1024,
        context_tokens=8192,
        attention="bifurcated",
        kernel=kernel,
        execution=execution,
    )
    return result.step_s / MILLISECOND


def template() -> str:
    """Return the page with its figures, without what its commands print."""
    measured = {
        f"b{samples}": QUOTED[True, "bifurcated compiled", samples]
        for samples in (16, 32, 64, 1024)
    }
    predicted = {
        f"p{samples}": predicted_ms()[True, "bifurcated compiled", samples]
        for samples in (16, 32, 64, 1024)
    }
    both = _compare("llama-2-7b", "h100-sxm", 16)
    return PAGE.format(
        first=HEADLINES[0].measured,
        second=HEADLINES[2].measured,
        first_predicted=HEADLINES[0].predicted,
        second_predicted=HEADLINES[2].predicted,
        eager_16=HEADLINES[1].measured,
        engine_16=both.speedup,
        flops=int(both.standard.totals.flops),
        headlines=_ratio_rows(HEADLINES),
        engines=_engine_rows(),
        grouped=_ratio_rows(GROUPED),
        grouped_16=_compare("mistral-7b-v0.2", "h100-sxm", 16).speedup,
        grouped_32=_compare("mistral-7b-v0.2", "h100-sxm", 32).speedup,
        flash=_step_ms("flash", "graph"),
        einsum=_step_ms("einsum", "compiled"),
        **measured,
        **predicted,
    )


def generated() -> dict[Path, str]:
    """Return the page as it should be, the printed outputs of its commands as they stand."""
    standing = PATH.read_text(encoding="utf-8") if PATH.exists() else ""
    outputs = {_commands(block): block for block in BLOCK.findall(standing)}
    page = BLOCK.sub(lambda match: outputs.get(_commands(match[0]), match[0]), template())
    return {PATH: page}


def draw() -> None:
    """Draw the page's pictures with the commands that stand below them."""
    from simulator.cli.main import build

    for name, question in PICTURES.items():
        path = PATH.parent / name
        words = ["plot", *question.split(), "-o", str(path), "--width", "1300"]
        build("plot")(args=words, standalone_mode=False)
        # Lines without a blank at their end, as the repository keeps them.
        path.write_text(path.read_text(encoding="utf-8").rstrip() + "\n", encoding="utf-8")


def _commands(block: str) -> tuple[str, ...]:
    """Return the commands of a console block."""
    return tuple(line for line in block.splitlines() if line.startswith("$ "))


if __name__ == "__main__":
    if "--pictures" in sys.argv:
        draw()
    PATH.write_text(generated()[PATH], encoding="utf-8")
