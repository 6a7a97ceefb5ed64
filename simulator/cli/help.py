"""What options are called, and what the help and the hints say: the tables of ``words.json``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_WORDS: Any = json.loads(Path(__file__).with_name("words.json").read_text(encoding="utf-8"))
# How options are spelt that have other names than their values, or several.
SPELT: Mapping[str, str] = _WORDS["spelt"]
# What the help says, by the names of options and arguments, where it does not fit beside them.
HELP: Mapping[str, str] = _WORDS["help"]
# Two questions that each command answers.
EXAMPLES: Mapping[str, Sequence[str]] = _WORDS["examples"]
# What the users of engines type, and our words for it.
SPELLINGS: Mapping[str, Sequence[str]] = {
    word: ours.split() for ours, words in _WORDS["spellings"].items() for word in words
}
# What they type that has no words of ours, and what to write instead.
MEANT: Mapping[str, str] = {word: said for said, words in _WORDS["meant"].items() for word in words}
