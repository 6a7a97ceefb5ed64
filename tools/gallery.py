# ruff: noqa: E501 - the lines of a page are as long as its sentences
"""Write docs/gallery.md and docs/figures/: python tools/gallery.py (needs kaleido and a browser).

Every figure is drawn by the command printed under it. A picture is drawn anew only if what it shows
has changed, which its hash tells. With ``--check`` the script only says what is out of date.
"""

import contextlib
import hashlib
import io
import json
import re
import shlex
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from simulator.cli import main as bifurcate
from simulator.views.plots.export import image
from simulator.views.plots.registry import FIGURES

FOLDER = Path(__file__).resolve().parent.parent / "docs"
PICTURES = FOLDER / "figures"
MARK = re.compile(r"<!-- ([0-9a-f]{12}) -->")

PAGE = """# Gallery

Written by `python tools/gallery.py`: every figure of [`bifurcate plot`](commands.md#plot), each drawn by the command under it from a
[scenario](scenarios.md). Titles are computed from the data; footers say what the figure rests on. Vermilion dashes are standard attention,
orange dots standard attention over one stored context, a solid blue line bifurcated attention, in every figure.

{figures}
"""
PART = """## {shows}

{remark}

![{finding}](figures/{file})

    bifurcate plot {command} -o {file}
"""


@dataclass(frozen=True)
class Picture:
    """One figure of one scenario, and what to look at in it."""

    figure: str
    scenario: str
    remark: str
    options: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.figure}-{self.scenario}.svg"

    @property
    def words(self) -> tuple[str, ...]:
        """Words of its command, but for the file."""
        return (self.figure, self.scenario, *self.options)


GALLERY = (
    Picture(
        "latency-samples",
        "code-sampling-8k",
        "Standard attention with a context copy for each sample ends at the cross; over one stored context it goes on, as slow as it would be.",
    ),
    Picture(
        "latency-samples",
        "eager-gqa",
        "No gain: the host's launches are the step, and bifurcated attention has more of them. The shaded intervals overlap, so it is too close to call.",
    ),
    Picture(
        "latency-context",
        "long-document-qa",
        "Along the context the bifurcated step stays almost flat until its products bind it.",
    ),
    Picture(
        "latency-kernels",
        "code-sampling-8k",
        "The same question for every kernel, in a CUDA graph and eager: what is gained depends on what it is compared with.",
    ),
    Picture(
        "operations",
        "self-consistency-maj40",
        "Where a step's time and bytes go. Sharing shrinks the purple part alone; weights (green) stay.",
    ),
    Picture(
        "roofline",
        "code-sampling-8k",
        "Reading the context once multiplies the FLOPs per byte of attention; own tokens stay where they were.",
    ),
    Picture(
        "speedup-map",
        "self-consistency-maj40",
        "Where sharing pays: above and right of the black line. Above the dashed line standard attention, with a context copy for each sample, does not fit.",
    ),
    Picture(
        "speedup-map",
        "short-prefix-vllm",
        "The same with 8 KV heads and 512 own tokens: it takes thousands of tokens of context until it pays, or many samples.",
    ),
    Picture(
        "kv-io",
        "kv-heads-what-if",
        "The ratio of KV bytes is not the speed-up: the dotted line would be if it were.",
    ),
    Picture(
        "memory",
        "grpo-deepseekmath",
        "Own tokens are stored for each sample under either kind of attention; in long generations both end at the same count.",
    ),
    Picture(
        "pareto",
        "repeated-sampling",
        "Throughput against latency, a curve for each GPU along its samples.",
    ),
    Picture(
        "cost",
        "code-sampling-8k",
        "What a million tokens cost on every GPU whose price is known; hollow marks do not fit in memory.",
    ),
    Picture(
        "kv-heads",
        "kv-heads-what-if",
        "Fewer KV heads and bifurcated attention are two ways out of the same cost: each makes the other matter less.",
    ),
    Picture(
        "equal-quality",
        "code-sampling-8k",
        "A model with one KV head must be a tenth larger to be as good (the paper's factor). With bifurcated attention the multi-head one needs that less.",
    ),
    Picture(
        "generation",
        "swe-bench-sampling",
        "A whole generation, here a long one: with every own token the shared part of the reads shrinks, and the gain with it.",
        ("--output-len", "32K"),
    ),
)


@cache
def drawn(picture: Picture) -> Any:
    """Draw a figure by its command."""
    import plotly.graph_objects as go

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figure.json"
        with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
            bifurcate(["plot", *picture.words, "-o", str(path)])
        return go.Figure(json.loads(path.read_text(encoding="utf-8")))


def fingerprint(picture: Picture) -> str:
    """Return a hash of all that a figure shows, numbers to four digits."""
    text = json.dumps(rounded(json.loads(drawn(picture).to_json())), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def rounded(value: Any) -> Any:
    """Return data with every number at four digits: further ones differ between machines."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return f"{value:.4g}" if isinstance(value, float) else value


def page() -> str:
    """Return the page."""
    parts = []
    for picture in GALLERY:
        shows = FIGURES[picture.figure].shows
        parts.append(
            PART.format(
                shows=shows[0].upper() + shows[1:],
                remark=picture.remark,
                finding=drawn(picture).layout.meta["finding"],
                file=picture.file,
                command=shlex.join(picture.words),
            )
        )
    return PAGE.format(figures="\n".join(parts).rstrip())


def svg(picture: Picture) -> str:
    """Return a figure as SVG, the same every time: Plotly's random ids are replaced."""
    text = image(drawn(picture), "svg").decode()
    found = re.search(r'id="(?:top)?defs-([0-9a-f]+)"', text)
    if found:
        text = text.replace(found.group(1), picture.figure)
    text = re.sub(r' (?:class|data-[a-z]+)="[^"]*"', "", text)  # plotly.js's own notes
    return f"{text}\n<!-- {fingerprint(picture)} -->\n"


def stale() -> list[Path]:
    """Return which files are out of date; needs no browser."""
    found = []
    for picture in GALLERY:
        path = PICTURES / picture.file
        mark = MARK.search(path.read_text(encoding="utf-8")) if path.exists() else None
        if mark is None or mark.group(1) != fingerprint(picture):
            found.append(path)
    target = FOLDER / "gallery.md"
    if not target.exists() or target.read_text(encoding="utf-8") != page():
        found.append(target)
    return found


def main() -> None:
    """Write what is out of date, or with ``--check`` name it."""
    wanted = stale()
    if "--check" in sys.argv:
        if wanted:
            names = ", ".join(str(path.relative_to(FOLDER.parent)) for path in wanted)
            sys.exit(f"out of date: {names}; run python tools/gallery.py")
        return
    PICTURES.mkdir(exist_ok=True)
    for picture in GALLERY:
        path = PICTURES / picture.file
        if path in wanted:
            path.write_text(svg(picture), encoding="utf-8")
    (FOLDER / "gallery.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
