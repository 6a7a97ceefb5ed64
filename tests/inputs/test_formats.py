"""Formats of groups of tensors: names, bytes with scales, and what stands for all of them."""

import pytest
from builders import llama_2_7b
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from simulator.inputs.dtypes import DTYPES
from simulator.inputs.formats import (
    LAYER_TENSORS,
    NAMED_FORMATS,
    TENSOR_GROUPS,
    WeightFormat,
    WeightFormats,
    grouped_bytes,
    one_format,
)
from simulator.inputs.setup import Setup, ask


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("bf16", 16),
        ("fp8", 8),  # one scale for a tensor
        ("fp8_block", 8 + 32 / 128**2),  # DeepSeek-V3: fp32 per 128 x 128
        ("nvfp4", 4 + 8 / 16),  # NVIDIA: fp8 per 16
        ("mxfp4", 4 + 8 / 32),  # OCP MX 1.0: an exponent per 32
        ("int4", 4 + 16 / 128),
        ("awq", 4 + (16 + 4) / 128),  # and a zero point
        ("gptq", 4 + (16 + 4) / 128),
    ],
)
def test_bytes_include_scales(name: str, bits: float) -> None:
    """Bits of a weight and its share of scale and zero point."""
    assert NAMED_FORMATS[name].bytes == bits / 8


@given(st.sampled_from([2, 3, 4, 8]), st.integers(4, 4096), st.sampled_from([0, 4, 16]))
def test_larger_groups_cost_less_and_never_less_than_the_bits(
    bits: int, group: int, zero: int
) -> None:
    """A scale is shared by more weights; without limit only the bits are left."""
    found = grouped_bytes(bits, group, zero_bits=zero)
    assert bits / 8 < found < grouped_bytes(bits, group - 1, zero_bits=zero)
    assert found * group == pytest.approx(bits * group / 8 + 2 + zero / 8)


@pytest.mark.parametrize("name", DTYPES)
def test_one_format_is_that_of_all_layers_alone(name: str) -> None:
    """Tables and head keep 16 bits or more, as in published checkpoints."""
    formats = one_format(name)
    assert {formats.of(group).dtype for group in LAYER_TENSORS} == {name}
    assert formats.of("head") == formats.of("embedding") == NAMED_FORMATS[formats.base]
    assert formats.name == str(formats) == formats.products == name
    assert WeightFormats.read(name) == formats


def test_formats_by_group() -> None:
    """gpt-oss: experts alone are quantised; a name may stand for a format."""
    formats = WeightFormats.read({"experts": "mxfp4"})
    assert formats.of("experts") == NAMED_FORMATS["mxfp4"]
    assert {formats.of(group).dtype for group in TENSOR_GROUPS} == {"bf16", "mxfp4"}
    assert (formats.name, formats.products) == ("auto", "bf16")
    assert str(formats) == "bf16 with mxfp4 experts"
    assert formats.narrowest == NAMED_FORMATS["mxfp4"]
    assert WeightFormats.read(formats.as_dict()) == formats


@pytest.mark.parametrize("wrong", ["int5", {"expert": "fp8"}, {"mlp": "auto"}, 4])
def test_what_is_no_format_is_refused(wrong: object) -> None:
    """A misspelled group or format is an error, not 16 bits."""
    with pytest.raises(ValidationError):
        WeightFormats.read(wrong)


def test_products_of_expanded_weights_have_the_activations_format() -> None:
    """Unless the activations are quantised too (W4A8)."""
    assert NAMED_FORMATS["int4"].product_dtype("fp16") == "fp16"
    assert NAMED_FORMATS["fp8"].product_dtype("bf16") == "fp8"
    four = WeightFormat(dtype="int4", bytes=0.5, multiplied="fp8")
    assert four.product_dtype("bf16") == "fp8"


def test_auto_is_the_checkpoint_and_a_name_replaces_all_of_it() -> None:
    """--dtype auto is the default; a single name holds for all matrices within layers."""
    mixed = WeightFormats.read({"experts": "mxfp4"})
    model = llama_2_7b(weights=mixed, kv_dtype="fp8")
    for given_name in (None, "auto"):
        setup, _ = ask(model, weight_dtype=given_name, kv_dtype=given_name)
        assert (setup.weight_dtype, setup.weights, setup.kv_dtype) == ("auto", mixed, "fp8")
        assert setup.under("bifurcated").but(tensor_parallel=2).weights == mixed
    setup, _ = ask(model, weight_dtype="awq", kv_dtype="bf16")
    assert (setup.weights, setup.kv_dtype) == (one_format("awq"), "bf16")
    assert setup.but(weight_dtype="fp8").weights == one_format("fp8")
    # A plain checkpoint has a name, and what is written of a question can be asked again.
    plain, _ = ask(llama_2_7b(weights="fp8"))
    assert plain.weight_dtype == "fp8"
    mixed_setup, _ = ask(model)
    assert ask(model, **mixed_setup.as_dict())[0] == mixed_setup
    assert Setup(weight_dtype="auto").weights == one_format("bf16")


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("bf16", 16),
        ("fp8", 8),
        ("int8", 8 + 32 / 128),  # a 16-bit scale and zero point for each token and head
        ("int4", 4 + 32 / 128),
        ("nvfp4", 4.5),
        ("mxfp4", 4.25),
    ],
)
def test_cached_values_have_scales_too(name: str, bits: float) -> None:
    """Per value of a head of 128."""
    assert Setup(kv_dtype=name).kv_bytes == bits / 8
