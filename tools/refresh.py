"""Run every command in the docs and keep the output printed below it true.

A block fenced as ``console`` holds commands behind ``$``, each followed by its output. Run this
file to rewrite the outputs; with ``--check`` it only says which are out of date.
"""

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from tools import cascade_rule, paper_claims, published_signs

ROOT = Path(__file__).resolve().parent.parent
# Pages that are generated whole; docs/accuracy.md is not among them: it needs measured rows.
GENERATORS = (cascade_rule, published_signs, paper_claims)
BLOCK = re.compile(r"(^```console\n)(.*?)(^```$)", re.MULTILINE | re.DOTALL)


def documents() -> list[Path]:
    """Return the documents that may hold commands."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(text: str) -> list[str]:
    """Return the commands in the console blocks of a document."""
    blocks = (match.group(2) for match in BLOCK.finditer(text))
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def output_of(command: str) -> str:
    """Run a documented command away from the checkout and return what it prints."""
    words = shlex.split(command)
    if words[0] != "bifurcate":
        raise SystemExit(f"only bifurcate is run from the docs, not {words[0]!r}")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(  # noqa: S603 - our own command, from our own docs
            [sys.executable, "-m", "simulator.cli", *words[1:]],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    return done.stdout + done.stderr


def refreshed(text: str) -> str:
    """Return a document with the outputs of its commands as they are now."""

    def rewrite(match: re.Match[str]) -> str:
        parts = [f"$ {command}\n{output_of(command)}" for command in commands(match.group(0))]
        return match.group(1) + "\n".join(parts) + match.group(3)

    return BLOCK.sub(rewrite, text)


def generated() -> dict[Path, str]:
    """Return the files that scripts beside this one write whole, and what they should say."""
    files: dict[Path, str] = {}
    for page in GENERATORS:
        files |= page.generated()
    return files


def main() -> None:
    """Rewrite the documents, or with ``--check`` name those that are out of date."""
    stale = []
    for path, text in generated().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.relative_to(ROOT))
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    for path in documents():
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        new = refreshed(text)
        if new != text:
            stale.append(path.relative_to(ROOT))
            if "--check" not in sys.argv:
                path.write_text(new, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"out of date: {', '.join(map(str, stale))}; run python tools/refresh.py")


if __name__ == "__main__":
    main()
