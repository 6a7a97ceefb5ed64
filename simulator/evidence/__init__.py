"""Why the numbers can be trusted: runnable code, its traces, measurements and validation.

Import the subpackages by name; this package loads none of them, so torch stays optional.
"""

import tomllib
from pathlib import Path
from typing import Any


def tables(name: str) -> Any:
    """Return the tables of a file in this folder, such as ``fit/stages.toml``."""
    return tomllib.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))
