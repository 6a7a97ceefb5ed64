"""Adapters to other libraries: absent here, so stand-ins play every version's by its source.

That the real libraries compute what their documentation says is for a machine that has them.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from layouts import lay_out
from library_stand_ins import (
    VLLM_MODULES,
    install_flashinfer,
    install_vllm,
    module,
    signature,
    taking,
    versions,
)
from torch import Tensor

from simulator.errors import KernelError
from simulator.evidence.kernels import EXTERNAL_KERNELS, find_kernel
from simulator.evidence.kernels.external import plan_flashinfer_cascade as plan_flashinfer
from simulator.evidence.kernels.external import plan_vllm_cascade as plan_vllm
from simulator.evidence.kernels.inputs import Inputs
from simulator.evidence.kernels.other_libraries import flashinfer_workspace_bytes

Draw = Callable[..., Inputs]
Reference = Callable[..., Tensor]
# prompts, samples, kv_heads, group, head_dim, context_tokens, decoded_tokens
SHAPES = [(2, 3, 2, 3, 64, 40, 5), (1, 4, 1, 1, 64, 16, 16), (3, 1, 2, 7, 64, 1, 33)]
NAMES = tuple(EXTERNAL_KERNELS)
FLASHINFER, VLLM = versions("flashinfer", "plan"), versions("vllm", "flash_attn_varlen_func")


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the stand-ins of the newest versions where the adapters look."""
    install_flashinfer(monkeypatch, FLASHINFER[-1])
    install_vllm(monkeypatch, VLLM[-1])


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("version", FLASHINFER)
def test_flashinfer_is_handed_the_whole_problem(
    version: str,
    graph: bool,
    random_inputs: Draw,
    reference: Reference,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every version takes the calls, and both levels, base 2 and all, make up the attention."""
    install_flashinfer(monkeypatch, version)
    for shape in SHAPES:
        inputs = random_inputs(shape)
        for scale in (None, 0.4):
            output = plan_flashinfer(inputs, scale=scale, graph=graph).attend(*inputs)
            truth = reference(*inputs, scale=scale)
            torch.testing.assert_close(output, truth, rtol=0, atol=1e-12)


@pytest.mark.parametrize("version", VLLM)
def test_vllm_is_handed_the_whole_problem(
    version: str, random_inputs: Draw, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every version takes the calls, with the FlashAttention it would take itself."""
    install_vllm(monkeypatch, version)
    for shape in SHAPES:
        inputs = random_inputs(shape)
        for scale in (None, 0.4):
            planned = plan_vllm(inputs, scale=scale)
            truth = reference(*inputs, scale=scale)
            torch.testing.assert_close(planned.attend(*inputs), truth, rtol=0, atol=1e-12)
    assert "FlashAttention-3" in planned.note


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("name", NAMES)
def test_a_plan_serves_other_caches_of_its_size(
    name: str, random_inputs: Draw, reference: Reference
) -> None:
    """One plan, many layers; and the kernel itself, which plans anew, agrees."""
    kernel = EXTERNAL_KERNELS[name]
    first, second = random_inputs(SHAPES[0]), random_inputs(SHAPES[0], seed=1)
    planned = kernel.ready(first)
    for inputs in (first, second):
        torch.testing.assert_close(planned.attend(*inputs), reference(*inputs), rtol=0, atol=1e-12)
        torch.testing.assert_close(kernel(*inputs), planned.attend(*inputs), rtol=0, atol=0)


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("name", NAMES)
def test_a_paged_cache_is_not_copied(name: str, random_inputs: Draw) -> None:
    """Laid out in pages, what the library reads is the cache itself; otherwise a copy."""
    kernel = EXTERNAL_KERNELS[name]
    for shape in SHAPES:
        inputs = random_inputs(shape)
        paged = lay_out(kernel.layout, *inputs)
        for given, laid in zip(inputs, paged, strict=True):
            torch.testing.assert_close(laid, given, rtol=0, atol=0)
        planned = kernel.ready(inputs)
        for cache, pool in zip(paged[1:3], planned.arrange(paged)[1:], strict=True):
            assert pool.data_ptr() == cache.data_ptr()
        assert planned.arrange(inputs)[1].data_ptr() != inputs[1].data_ptr()
        torch.testing.assert_close(planned.attend(*inputs), planned.attend(*paged), rtol=0, atol=0)


def test_parts_of_a_paged_cache_are_no_paged_cache(random_inputs: Draw) -> None:
    """Own tokens of some of its samples, or of another pool, are copied to where they belong."""
    query, keys, values, own_keys, own_values = lay_out("paged", *random_inputs(SHAPES[1]))
    others = (query, values, keys, own_keys, own_values)
    fewer = (query[:, 1:], keys, values, own_keys[:, 1:], own_values[:, 1:])
    for given in (others, fewer):
        again = lay_out("paged", *given)
        for before, after in zip(given, again, strict=True):
            torch.testing.assert_close(after, before, rtol=0, atol=0)
        assert again[1].data_ptr() != given[1].data_ptr()


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_refuses_an_empty_part(name: str, random_inputs: Draw) -> None:
    """An empty sequence would come back with a log-sum-exp of +inf."""
    for sizes in [(1, 2, 1, 1, 64, 4, 0), (1, 2, 1, 1, 64, 0, 4)]:
        with pytest.raises(KernelError, match="at least one context and one decoded token"):
            EXTERNAL_KERNELS[name].function(*random_inputs(sizes))


@pytest.mark.parametrize("name", NAMES)
def test_an_absent_library_is_named(
    name: str, random_inputs: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says which package is missing and how to get it."""
    for missing in ("flashinfer", *VLLM_MODULES):
        monkeypatch.setitem(sys.modules, missing, None)
    kernel = EXTERNAL_KERNELS[name]
    with pytest.raises(KernelError, match=r"pip install (flashinfer-python|vllm)") as caught:
        kernel.function(*random_inputs((1, 2, 1, 1, 64, 4, 2)))
    assert "\n" not in str(caught.value)
    assert kernel.library is not None
    assert not kernel.library.installed
    with pytest.raises(KernelError, match=r"not installed: pip install"):
        find_kernel(name)


def test_a_library_that_fails_to_load_is_one_line(
    random_inputs: Draw, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """FlashInfer 0.6.18 asks for a card when it is imported; whatever it raises is passed on."""
    (tmp_path / "flashinfer.py").write_text("raise AssertionError('Torch not\\n compiled')\n")
    monkeypatch.delitem(sys.modules, "flashinfer", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    for use in (lambda: plan_flashinfer(random_inputs(SHAPES[0])), lambda: find_kernel(NAMES[0])):
        with pytest.raises(KernelError, match=r"not usable here \(Torch not compiled\)"):
            use()


def test_a_flashinfer_of_another_kind_is_refused(
    random_inputs: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version without the wrapper, or whose plan takes no scale, is named with what it lacks."""
    inputs = random_inputs(SHAPES[0])
    monkeypatch.setitem(sys.modules, "flashinfer", module("flashinfer"))
    with pytest.raises(KernelError, match=r"no flashinfer.MultiLevel.*0\.2\.0 to 0\.7\.2"):
        plan_flashinfer(inputs)
    install_flashinfer(monkeypatch, FLASHINFER[0])
    wrapper = sys.modules["flashinfer"].MultiLevelCascadeAttentionWrapper
    vars(wrapper)["plan"] = lambda q_data_type: q_data_type
    with pytest.raises(KernelError, match="plan takes no sm_scale"):
        plan_flashinfer(inputs)


def test_a_vllm_of_another_kind_is_refused(
    random_inputs: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions without page tables, a merge or a FlashAttention for the card say which."""
    inputs = random_inputs(SHAPES[0])
    install_vllm(monkeypatch, VLLM[-1])
    flash_attn = sys.modules["vllm.vllm_flash_attn"]
    known = signature("vllm", "flash_attn_varlen_func", VLLM[-1])
    old = known.replace(
        parameters=[part for name, part in known.parameters.items() if name != "seqused_k"]
    )
    monkeypatch.setattr(flash_attn, "flash_attn_varlen_func", taking(old, lambda **_: None))
    with pytest.raises(KernelError, match=r"takes no seqused_k; the adapter is for 0\.8\.5 to"):
        plan_vllm(inputs)
    install_vllm(monkeypatch, VLLM[-1])
    monkeypatch.setitem(sys.modules, "vllm.v1.attention.ops.merge_attn_states", None)
    with pytest.raises(KernelError, match="merge_attn_states"):
        plan_vllm(inputs)
    install_vllm(monkeypatch, VLLM[-1])
    choose = sys.modules["vllm.v1.attention.backends.fa_utils"]
    monkeypatch.setattr(choose, "get_flash_attn_version", lambda: None)
    with pytest.raises(KernelError, match="no FlashAttention for this GPU and head_dim = 64"):
        plan_vllm(inputs)


def test_flashinfers_partial_outputs_fit_its_workspace() -> None:
    """What its plan reserved in 0.4.1 on a card of 132 SMs: two blocks of 128 rows on each SM.

    scheduler.cuh: heads x blocks per KV head x rows of a block x (head_dim + 1) float32.
    """
    for heads, kv_heads in [(32, 32), (32, 8), (32, 1), (64, 8)]:
        reserved = heads * (264 // kv_heads) * 128 * (128 + 1) * 4
        sizes = {"heads": heads, "kv_heads": kv_heads, "head_dim": 128}
        given = SimpleNamespace(prompts=1, samples=256, **sizes)
        assert flashinfer_workspace_bytes(given) >= reserved
    # In a graph each of 1024 samples' queries has a tile of 16 rows of its own.
    sizes = {"heads": 32, "kv_heads": 32, "head_dim": 128}
    many = flashinfer_workspace_bytes(SimpleNamespace(prompts=1, samples=1024, **sizes))
    assert many >= 32 * (1024 // 16 + 1023) * 16 * (128 + 1) * 4
