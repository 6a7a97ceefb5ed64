"""Cards are found by the names that drivers, clouds and measured rows give them."""

import pytest

from simulator.errors import ProfileError
from simulator.inputs.hardware import Card, load_hardware, respelled


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("B200-SXM6-192GB", "b200-sxm"),
        ("B200-SXM-180GB", "b200-sxm"),
        ("GB200-186GB", "gb200"),
        ("H20-SXM5-96GB", "h20"),
        ("NVIDIA L20", "l20"),
        ("Tesla V100 SXM2 32GB", "v100-sxm2-32gb"),
        ("NVIDIA GeForce RTX 3090 GPU", "rtx-3090"),
        ("NVIDIA A100 80GB SXM4", "a100-sxm-80gb"),
        ("NVIDIA A100 40GB SXM4", "a100-sxm-40gb"),
    ],
)
def test_another_spelling_finds_the_card(name: str, card: str) -> None:
    """Makers, memory kinds and rounded sizes do not matter; form factor and size do."""
    assert load_hardware(name).id == card


@pytest.mark.parametrize("name", ["GPU", "nvidia", "B200-PCIe", "L40S 24GB", "H100 512GB", ""])
def test_what_could_be_no_card_or_several_is_refused(name: str) -> None:
    """A name is never guessed: other words, or another size of memory, is another card."""
    with pytest.raises(ProfileError, match="unknown GPU"):
        load_hardware(name)


def test_two_cards_of_the_same_words_are_told_apart_by_memory_or_not_at_all() -> None:
    """Without a size, a name that fits two cards is none of them."""
    cards = {"x-40": Card(("X SXM",), 40), "x-80": Card(("X SXM",), 80)}
    assert respelled("X SXM4 80GB", cards) == "x-80"
    assert respelled("X SXM4", cards) is None
