# ruff: noqa: E501 - the lines of a page are as long as its sentences
"""Write docs/paper_claims.md: python tools/refresh.py.

The page follows the argument of Athiwaratkun et al. claim by claim. tools/refresh.py fills in the
output of its commands; this script computes the other figures. A few measured times are quoted with
their source. The commands under its pictures draw them, with these files as output (which needs
kaleido and a browser): docs/paper_latency.svg by the first, ``--width 1300``, and
docs/paper_equal_quality.svg.
"""

import re
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path

import simulator
from simulator.answers.size_factor import shipped_factors
from simulator.answers.studies import PooledFactor
from simulator.evidence.predict.validate import validate
from simulator.evidence.rows.reading import load
from simulator.units import MILLISECOND
from simulator.views.studies import FREED
from tools import DOCS, page, tables
from tools.size_factors import PATH as FACTORS

PATH = DOCS / "paper_claims.md"
BLOCK = re.compile(r"^```console\n.*?^```$", re.MULTILINE | re.DOTALL)

_TABLES = tables("paper_claims.toml")

# The attention, kernel, cache layout and execution of each code.
CODES: Mapping[str, list[str]] = _TABLES["codes"]
# Whether the KV heads are repeated, the code, and the samples of a measured step.
Cell = tuple[bool, str, int]
# The measured steps. [ms]
QUOTED: Mapping[Cell, float] = {
    (repeated, code, int(samples)): step_ms
    for repeated, table in ((True, "repeated"), (False, "grouped"))
    for code, steps in _TABLES[table].items()
    for samples, step_ms in steps.items()
}


@dataclass(frozen=True)
class Ratio:
    """Two quoted cells and their ratio."""

    what: str
    standard: Cell
    bifurcated: Cell

    @property
    def measured(self) -> float:
        """Measured speed-up."""
        return QUOTED[self.standard] / QUOTED[self.bifurcated]

    @property
    def predicted(self) -> float:
        """Speed-up according to the account of the paper's code."""
        return predicted_ms()[self.standard] / predicted_ms()[self.bifurcated]


def _ratios(table: str, *, repeated: bool) -> tuple[Ratio, ...]:
    """Return the ratios of a table of the page."""
    return tuple(
        Ratio(
            each["what"],
            (repeated, each["standard"], each["samples"]),
            (repeated, each["bifurcated"], each["samples"]),
        )
        for each in _TABLES[table]
    )


HEADLINES = _ratios("headline", repeated=True)
GROUPED = _ratios("headline_grouped", repeated=False)


@cache
def predicted_ms() -> Mapping[Cell, float]:
    """Return the steps of the quoted cells by the account of the paper's code. [ms]."""
    head = "gpu,model,expand_kv,weights_dtype,tensor_parallel,context_tokens,samples,attention,kernel,kv_layout,execution,status,step_ms"
    lines = [
        f"H100,mistral-7b,{int(repeated)},bf16,1,8192,{samples},{','.join(CODES[code])},ok,{measured}"
        for (repeated, code, samples), measured in QUOTED.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quoted.csv"
        path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
        rows = validate(load([path])).rows.sort_values("line")
    return dict(zip(QUOTED, rows["predicted_step_ms"].tolist(), strict=True))


_compare = partial(simulator.compare, context_tokens=8192)


def _ratio_rows(ratios: tuple[Ratio, ...]) -> str:
    """Tabulate quoted pairs."""
    return "\n".join(f"| {r.what} | {r.measured:.2f} | {r.predicted:.2f} |" for r in ratios)


def _engine_rows() -> str:
    """Tabulate the speed-up with engines' kernels."""
    lines = []
    for gpu in ("h100-sxm", "a100-sxm-80gb"):
        cells = []
        for samples in (16, 32):
            both = _compare("llama-2-7b", gpu, samples=samples)
            cells.append(f"{both.speedup:.1f} ({both.speedup_low:.1f} to {both.speedup_high:.1f})")
        lines.append(f"| {both.standard.gpu.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def factors() -> dict[tuple[str, str], PooledFactor]:
    """Return the shipped size factors by family, and by where the freed parameters went."""
    return {(each.family, each.matched_by): each for each in shipped_factors().factors}


def _factor_rows() -> str:
    """Tabulate the size factors of families that this project counts."""
    lines = []
    known = factors()
    families = ("multi-query", "multi-group", "MLA", "GLA-2", "MQA-CLA2")
    for name in product(families, ("nothing", "mlp", "heads")):
        if (each := known.get(name)) is None:
            continue
        papers = ", ".join(f"{paper} {value:.2f}" for paper, value in each.papers.items())
        lines.append(
            f"| {name[0]}, {FREED[name[1]]} | {each.runs} | {each.size_factor:.2f} ({each.low:.2f} to "
            f"{each.high:.2f}) | {each.loss_change:+.1%} ({each.loss_low:+.1%} to "
            f"{each.loss_high:+.1%}) | {papers} |"
        )
    return "\n".join(lines)


def _step_ms(kernel: str, execution: str) -> float:
    """Return the bifurcated step of 1024 samples under a kernel. [ms]."""
    result = simulator.estimate(
        "llama-2-7b",
        samples=1024,
        context_tokens=8192,
        attention="bifurcated",
        kernel=kernel,
        execution=execution,
    )
    return result.step_s / MILLISECOND


def template() -> str:
    """Return the page with its figures, without the output of its commands."""
    steps = {
        f"{letter}{samples}": times[True, "bifurcated compiled", samples]
        for letter, times in (("b", QUOTED), ("p", predicted_ms()))
        for samples in (16, 32, 64, 1024)
    }
    both, known = _compare("llama-2-7b", "h100-sxm", samples=16), factors()
    table = tomllib.loads(FACTORS.read_text(encoding="utf-8"))
    return page(
        "paper_claims.md",
        papers=len(table["sources"]),
        factors=_factor_rows(),
        query_nothing=known["multi-query", "nothing"],
        query_mlp=known["multi-query", "mlp"],
        query_heads=known["multi-query", "heads"],
        most_loss=known["H32-MQA", "nothing"].loss_change,
        table=table,
        ratios=HEADLINES,
        both=both,
        flops=int(both.standard.totals.flops),
        headlines=_ratio_rows(HEADLINES),
        engines=_engine_rows(),
        grouped=_ratio_rows(GROUPED),
        grouped_16=_compare("mistral-7b-v0.2", "h100-sxm", samples=16).speedup,
        grouped_32=_compare("mistral-7b-v0.2", "h100-sxm", samples=32).speedup,
        flash=_step_ms("flash", "graph"),
        einsum=_step_ms("einsum", "compiled"),
        **steps,
    )


def generated() -> dict[Path, str]:
    """Return the expected page, with the current outputs of its commands."""
    standing = PATH.read_text(encoding="utf-8") if PATH.exists() else ""
    outputs = {_commands(block): block for block in BLOCK.findall(standing)}
    return {PATH: BLOCK.sub(lambda match: outputs.get(_commands(match[0]), match[0]), template())}


def _commands(block: str) -> tuple[str, ...]:
    """Return the commands of a console block."""
    return tuple(line for line in block.splitlines() if line.startswith("$ "))
