# ruff: noqa: E501 - the lines of a page are as long as its sentences
"""Write docs/published_signs.md: python tools/published_signs.py, or tools/refresh.py.

Published cells in which reading a shared context once was measured to win, to lose or to change
nothing, each beside what the model says of it. Tests hold every cell to its place: those that agree
must agree, and those listed as missed must still be missed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from simulator.answers.estimate import Estimate, estimate
from simulator.inputs.hardware import load_hardware
from simulator.inputs.model import ModelShape
from simulator.inputs.presets import load_model
from simulator.inputs.workload import Attention, workload_for

Sign = Literal["wins", "loses", "no gain"]

FOLDER = Path(__file__).resolve().parent.parent / "docs"
# "No gain" is said of figures rounded to two digits, and of throughputs in which nobody would have
# noticed less than this.
NOTICED = 0.10

PAGE = """# Where sharing was measured to win and to lose

Published cells, and what the model says of them with the shipped constants. Figures are the time of standard over that of
bifurcated attention, below 1 where sharing loses. No constant was tuned to them. Written by `python tools/refresh.py`; the tests
(`tests/golden/test_published_cells.py`) hold each cell to its place: those of the first table must keep their sign, and those of the
second are listed only as long as they are missed.

A cell counts as right if the model is above 1 for a win, below 1 for a loss, and below {noticed} for "no gain". *Attention*: the
attention kernels alone, as kernel benchmarks time them; *step*: a whole decode step.

| source | configuration | of | measured | model |
| --- | --- | --- | --- | --- |
{right}

Missed, {missed} of {total}:

| source | configuration | of | measured | model | likely reason |
| --- | --- | --- | --- | --- | --- |
{wrong}

The measured rows of RelayAttention on an A40 (52 heads; 70 cells of batch, prefix and own tokens with both sides) are checked one by
one where the file is at hand: the model has the sign right in 68; the other two are 4 samples of a 64-token prefix, in the second
table.

## What the misses have in common

They are short prefixes or few samples: few bytes are saved, and what decides is how many multiprocessors the context's kernel
keeps busy and what its extra launches cost. The model times a kernel that folds the query heads and splits the keys, as today's can;
those published did neither, which is also why the model's wins on H100 and L20 are larger than theirs. A cell that says "wins" here
says so for such a kernel.
"""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One published figure.

    Attributes
    ----------
    source, what
        Where it was published, and the configuration in words.
    measured
        The published ratio, or what was said.
    sign
        What that is.
    of
        Whether attention alone or the whole step was timed.
    shape, gpu, work
        The model, the GPU's name, and the fields of the workload.
    standard, bifurcated
        Further fields of each side.
    why
        Why the model is likely to miss it, "" where it does not.
    """

    source: str
    what: str
    measured: str
    sign: Sign
    of: Literal["attention", "step"] = "attention"
    shape: ModelShape
    gpu: str
    work: Mapping[str, Any]
    standard: Mapping[str, Any] = field(default_factory=dict)
    bifurcated: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""

    @property
    def name(self) -> str:
        """Name of the cell."""
        return f"{self.source}: {self.what}"

    def ratio(self) -> float:
        """Return the model's time of standard over that of bifurcated attention."""
        return self._time_s("standard") / self._time_s("bifurcated")

    def agrees(self) -> bool:
        """Return whether the model has the sign right."""
        ratio = self.ratio()
        if self.sign == "wins":
            return ratio > 1
        return ratio < (1 if self.sign == "loses" else 1 + NOTICED)

    def _time_s(self, attention: Attention) -> float:
        """Return one side's time. [s]."""
        more = self.standard if attention == "standard" else self.bifurcated
        settings = {"decoded_tokens": 128, "attention": attention, **self.work, **more}
        work = workload_for(self.shape, **settings)
        result = estimate(self.shape, load_hardware(self.gpu), work.under(attention))
        return attention_s(result) if self.of == "attention" else result.step_s


def attention_s(result: Estimate) -> float:
    """Return the time of a step's attention kernels. [s]."""
    around = ("attention_norm", "attention_post_norm", "attention_residual")
    return sum(
        operation.repeat * float(time.device_s)
        for operation, time in zip(result.operations, result.time.operations, strict=True)
        if operation.name.startswith("attention") and operation.name not in around
    )


def one_layer(heads: int, kv_heads: int, head_dim: int = 128) -> ModelShape:
    """Return one layer whose attention matters and nothing else."""
    return ModelShape(
        name=f"{heads} heads, {kv_heads} KV heads",
        layers=1,
        hidden_size=heads * head_dim,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=16,
        vocab_size=32,
    )


def cells() -> Iterator[Cell]:
    """Yield every published cell."""
    yield from _relay_attention()
    yield from _flashinfer()
    yield from _tensorrt_llm()
    yield from _vllm()
    yield from _hydragen()
    yield from _paper()


def _relay_attention() -> Iterator[Cell]:
    """Yield cells of RelayAttention on an A40 (rayleizhu/vllm-ra, NVIDIA-A40.csv)."""
    half = {"weight_dtype": "fp16", "kv_dtype": "fp16"}
    few = "four calls of a few microseconds each, timed too long by one of them"
    rows: Sequence[tuple[int, int, int, str, Sign, str]] = (
        *((1, 128, context, "0.64 to 0.97", "loses", "") for context in (64, 256, 1024, 4096)),
        (1, 128, 16384, "0.64 to 0.97", "loses", ""),
        (4, 128, 64, "1.01", "wins", few),
        (4, 256, 64, "1.06", "wins", few),
        (4, 128, 16384, "3.8", "wins", ""),
        (64, 128, 16384, "40", "wins", ""),
        (64, 256, 16384, "31", "wins", ""),
    )
    for samples, own, context, measured, sign, why in rows:
        yield Cell(
            source="RelayAttention, A40",
            what=f"52 heads, {_samples(samples)} of {context}, {own} own tokens",
            measured=measured,
            sign=sign,
            shape=one_layer(52, 52),
            gpu="a40",
            work={
                **half,
                "samples": samples,
                "context_tokens": context,
                "decoded_tokens": own,
            },
            why=why,
        )


def _flashinfer() -> Iterator[Cell]:
    """Yield cells of FlashInfer's cascade kernels: its post of 2024, and issues 595 and 789."""
    unsplit = (
        "its context kernel did not split the keys and left most multiprocessors idle; ours does"
    )
    rows: Sequence[tuple[int, int, str, Sign, str]] = (
        (1024, 8, "0.87", "loses", unsplit),
        (1024, 16, "1.0", "no gain", unsplit),
        (1024, 256, "2.4", "wins", ""),
        (8192, 8, "1.7", "wins", ""),
        (8192, 64, "7.8", "wins", ""),
        (8192, 256, "13.8", "wins", ""),
        (32768, 8, "2.7", "wins", ""),
        (32768, 64, "15.5", "wins", ""),
        (32768, 256, "29.5", "wins", ""),
    )
    for context, samples, measured, sign, why in rows:
        yield Cell(
            source="FlashInfer 2024, H100 SXM",
            what=f"32 heads, {_samples(samples)} of {context}, 128 own tokens",
            measured=measured,
            sign=sign,
            shape=one_layer(32, 32),
            gpu="h100-sxm",
            work={"samples": samples, "context_tokens": context},
            why=why,
        )
    heads: Sequence[tuple[int, str, Sign]] = (
        (1, "0.73 (19 µs, 26 µs)", "loses"),
        (8, "2.1 (55 µs, 26 µs)", "wins"),
    )
    for kv_heads, measured, sign in heads:
        yield Cell(
            source="flashinfer#595, H100",
            what=f"8 heads on {kv_heads} KV head{'s' if kv_heads > 1 else ''}, 8 samples of 4000",
            measured=measured,
            sign=sign,
            shape=one_layer(8, kv_heads),
            gpu="h100-sxm",
            work={"samples": 8, "context_tokens": 4000, "decoded_tokens": 64},
        )
    for samples, context in ((4, 1024), (16, 4096), (64, 16384)):
        yield Cell(
            source="flashinfer#789",
            what=f"DeepSeek-V3's latent cache, {_samples(samples)} of {context}",
            measured="no gain",
            sign="no gain",
            shape=load_model("deepseek-v3"),
            gpu="h100-sxm",
            work={"samples": samples, "context_tokens": context, "weight_dtype": "bf16"},
        )


def _tensorrt_llm() -> Iterator[Cell]:
    """Yield cells of FlashInfer cascade on an L20 (NVIDIA/TensorRT-LLM#14396)."""
    flat = "its time is flat at 90 µs whatever the prefix: launches of that implementation, which no byte explains"
    rows: Sequence[tuple[int, str, Sign, str]] = (
        (128, "0.52", "loses", flat),
        (256, "2.2", "wins", ""),
        (512, "4.2", "wins", ""),
        (1024, "8.4", "wins", ""),
        (4096, "32", "wins", ""),
    )
    for context, measured, sign, why in rows:
        yield Cell(
            source="TensorRT-LLM#14396, L20",
            what=f"16 heads on 8 KV heads, 128 beams of {context}, 3 own tokens",
            measured=measured,
            sign=sign,
            shape=one_layer(16, 8),
            gpu="l20",
            work={"samples": 128, "context_tokens": context, "decoded_tokens": 3},
            why=why,
        )


def _vllm() -> Iterator[Cell]:
    """Yield cells of vLLM's cascade attention: issues 44397 and 12395."""
    kernel = (
        "its context kernel does not split the keys or fold the grouped queries; ours does both"
    )
    rows: Sequence[tuple[int, str, str]] = (
        (1, "loses", ""),
        (8, "loses", ""),
        (64, "0.56 (FA2)", kernel),
        (128, "0.46 (FA3)", kernel),
        (512, "loses", kernel),
    )
    for samples, measured, why in rows:
        yield Cell(
            source="vllm#44397 (GPU not said: H100 taken)",
            what=f"32 heads on 8 KV heads taken, {_samples(samples)} of 512, one stored context",
            measured=measured,
            sign="loses",
            shape=one_layer(32, 8),
            gpu="h100-sxm",
            work={"samples": samples, "context_tokens": 512},
            standard={"kv_layout": "shared"},
            why=why,
        )
    for samples in (7, 8):
        yield Cell(
            source="vllm#12395, A100",
            what=f"Qwen2-0.5B, {_samples(samples)} of 1024",
            measured="no gain",
            sign="no gain",
            of="step",
            shape=load_model("qwen2-0.5b"),
            gpu="a100-sxm-80gb",
            work={"samples": samples, "context_tokens": 1024},
        )


def _hydragen() -> Iterator[Cell]:
    """Yield cells of Hydragen on A100 40GB (arXiv 2402.05099): models over 8 GPUs, one kernel."""
    host = "their host takes about 16 ms for a step; the account of eager PyTorch, twice that"
    rows: Sequence[tuple[str, int, int, str, Sign, str]] = (
        ("codellama-34b", 32, 1024, "1.0", "no gain", ""),
        ("codellama-13b", 64, 1024, "1.03", "no gain", ""),
        ("codellama-13b", 32, 1024, "1.18", "wins", host),
    )
    for model, samples, context, measured, sign, why in rows:
        yield Cell(
            source="Hydragen, 8 x A100 40GB",
            what=f"{model}, eager (inferred from 16 to 23 ms per step), {_samples(samples)} of {context}",
            measured=measured,
            sign=sign,
            of="step",
            shape=load_model(model),
            gpu="a100-sxm-40gb",
            work={
                "samples": samples,
                "context_tokens": context,
                "tensor_parallel": 8,
                "execution": "eager",
            },
            why=why,
        )
    for context, samples in ((1024, 512), (8192, 4096)):
        yield Cell(
            source="Hydragen, A100 40GB",
            what=f"8 heads on 1 KV head, {_samples(samples)} of {context}",
            measured="up to 16",
            sign="wins",
            shape=one_layer(8, 1),
            gpu="a100-sxm-40gb",
            work={"samples": samples, "context_tokens": context, "decoded_tokens": 64},
        )


def _paper() -> Iterator[Cell]:
    """Yield cells of the paper's own code in eager PyTorch: launches decide at few samples."""
    rows: Sequence[tuple[int, int, str, Sign]] = (
        (8192, 1, "0.77", "loses"),
        (8192, 32, "0.88", "loses"),
        (16384, 1, "loses", "loses"),
        (16384, 16, "loses", "loses"),
        (16384, 64, "wins", "wins"),
        (32640, 1, "loses", "loses"),
        (32640, 8, "loses", "loses"),
        (32640, 64, "wins", "wins"),
    )
    for context, samples, measured, sign in rows:
        yield Cell(
            source="the paper's code, eager, H100",
            what=f"Mistral-7B, {_samples(samples)} of {context}: its einsum against FlashAttention-2",
            measured=measured,
            sign=sign,
            of="step",
            shape=load_model("mistral-7b-v0.2"),
            gpu="h100-sxm",
            work={"samples": samples, "context_tokens": context, "execution": "eager"},
            standard={"kernel": "flash"},
            bifurcated={"kernel": "einsum"},
        )


def _samples(count: int) -> str:
    """Write a number of samples."""
    return f"{count} sample{'s' if count > 1 else ''}"


def generated() -> dict[Path, str]:
    """Return the page and what it should say."""
    right, wrong = [], []
    every = list(cells())
    for cell in every:
        line = f"| {cell.source} | {cell.what} | {cell.of} | {cell.measured} | {cell.ratio():.2g} |"
        if cell.why:
            wrong.append(f"{line} {cell.why} |")
        else:
            right.append(line)
    page = PAGE.format(
        noticed=f"{1 + NOTICED:g}",
        right="\n".join(right),
        wrong="\n".join(wrong),
        missed=len(wrong),
        total=len(every),
    )
    return {FOLDER / "published_signs.md": page}


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
