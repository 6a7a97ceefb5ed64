"""A step that decodes and computes a chunk of a prompt; prefill of a prompt cached in part."""

import pytest
from builders import asked, by_name, deepseek_v3, llama_2_7b, mistral_7b, mixtral_8x7b

from simulator.counts.operation import Operation, total
from simulator.counts.transformer import decode_operations, mixed_operations, prefill_operations
from simulator.inputs.model import ModelShape
from simulator.inputs.presets import load_model

MODELS = [llama_2_7b(), mistral_7b(), mixtral_8x7b(), deepseek_v3(), load_model("qwen3.5-27b")]


def _mixed(shape: ModelShape, *, tokens: int, before: int) -> list[Operation]:
    setup, work = asked(samples=1, prompts=32, context_tokens=2048, decoded_tokens=128)
    chunk = work.but(prompts=1, context_tokens=before + tokens)
    return mixed_operations(shape, setup, work, chunk, cached_tokens=before, resident_blocks=264)


def _decode(shape: ModelShape, prompts: int = 32) -> list[Operation]:
    setup, work = asked(samples=1, prompts=prompts, context_tokens=2048, decoded_tokens=128)
    return decode_operations(shape, setup, work, resident_blocks=264)


@pytest.mark.parametrize("shape", MODELS, ids=lambda shape: shape.name)
def test_nothing_cached_is_the_whole_prefill(shape: ModelShape) -> None:
    """A prompt of which nothing is stored takes the FLOPs and bytes of any prompt."""
    setup, work = asked(samples=1, context_tokens=4096)
    whole = total(prefill_operations(shape, setup, work))
    assert total(prefill_operations(shape, setup, work, cached_tokens=0)) == whole


@pytest.mark.parametrize("shape", MODELS, ids=lambda shape: shape.name)
def test_chunks_add_up_to_the_whole_prompt(shape: ModelShape) -> None:
    """The FLOPs of a prompt in two parts are its own, but for the head of the first part."""
    setup, work = asked(samples=1, context_tokens=4096)
    whole = total(prefill_operations(shape, setup, work)).flops
    first = prefill_operations(shape, setup, work.but(context_tokens=1024))
    rest = prefill_operations(shape, setup, work, cached_tokens=1024)
    head = sum(item.flops for item in rest if item.name == "lm_head")
    assert total(first).flops + total(rest).flops == pytest.approx(whole + head)


def test_attention_of_a_cached_prompt_by_hand() -> None:
    """Llama-2-7B, 1,024 of 4,096 tokens cached: the pairs of both less those of the first."""
    setup, work = asked(samples=1, context_tokens=4096)
    found = by_name(prefill_operations(llama_2_7b(), setup, work, cached_tokens=1024))
    pairs = 4096 * 4097 // 2 - 1024 * 1025 // 2
    attended = found["prefill_attention_level_2"]
    assert attended.flops == 2 * pairs * 32 * (128 + 128)
    # Keys and values of all 4,096 tokens are read, 16 bits each.
    assert attended.kv_bytes_read == 4096 * 32 * (128 + 128) * 2


@pytest.mark.parametrize("shape", MODELS[:2], ids=lambda shape: shape.name)
def test_a_mixed_step_reads_the_weights_once(shape: ModelShape) -> None:
    """The bytes of weights are a decode step's, but for more rows of the table of tokens."""
    mixed, decode = _mixed(shape, tokens=512, before=1024), _decode(shape)
    rows = [by_name(each)["embedding"].weight_bytes_read for each in (mixed, decode)]
    read = [
        total(each).weight_bytes_read - row for each, row in zip((mixed, decode), rows, strict=True)
    ]
    assert read[0] == read[1]


@pytest.mark.parametrize("shape", MODELS, ids=lambda shape: shape.name)
def test_a_mixed_step_does_the_work_of_both(shape: ModelShape) -> None:
    """Its FLOPs are those of the decode step and of the chunk."""
    setup, work = asked(samples=1, context_tokens=1024 + 512)
    chunk = total(prefill_operations(shape, setup, work, cached_tokens=1024)).flops
    both = total(_mixed(shape, tokens=512, before=1024)).flops
    assert both == pytest.approx(chunk + total(_decode(shape)).flops, rel=1e-3)
