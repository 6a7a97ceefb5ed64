"""Files of the Hugging Face hub that its tools have left on this machine; nothing is fetched.

Layout: huggingface_hub's ``models--ORG--NAME/snapshots/COMMIT/``, with the commit of each branch in
``refs/``.
"""

import os
import re
from pathlib import Path

_ID = r"[\w.-]+/[\w.-]+"


def is_hub_id(text: str) -> bool:
    """Return whether a text looks like a model's id on the hub.

    >>> is_hub_id("Qwen/Qwen3-8B"), is_hub_id("./Qwen/Qwen3-8B")
    (True, False)
    """
    return re.fullmatch(_ID, text) is not None


def hub_cache() -> Path:
    """Return the folder of the hub's cache, as huggingface_hub finds it."""
    if folder := os.environ.get("HF_HUB_CACHE"):
        return Path(folder)
    if home := os.environ.get("HF_HOME"):
        return Path(home) / "hub"
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "huggingface" / "hub"


def cached_config(hub_id: str) -> Path | None:
    """Return the config.json of a model in the hub's cache, None if it is not there.

    The commit of ``refs/main`` comes first, then the newest file.
    """
    model = hub_cache() / f"models--{hub_id.replace('/', '--')}"
    found = [path for path in model.glob("snapshots/*/config.json") if path.is_file()]
    try:
        commit = (model / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        commit = ""
    return max(
        found, key=lambda path: (path.parent.name == commit, path.stat().st_mtime), default=None
    )


def model_name(config: Path) -> str:
    """Return the name of the model in whose folder a config.json lies, in the hub's cache or not.

    >>> model_name(Path("/hub/models--Qwen--Qwen3-8B/snapshots/9c92/config.json"))
    'Qwen3-8B'
    >>> model_name(Path("/models/Qwen3-8B/config.json"))
    'Qwen3-8B'
    """
    folder = Path(os.path.abspath(config)).parent  # noqa: PTH100, resolve() would follow its link
    if folder.parent.name == "snapshots":
        folder = folder.parent.parent
    return folder.name.rpartition("--")[2] if folder.name.startswith("models--") else folder.name
