"""Whatever is typed or lies in a file: an answer, or one short line, and no input is changed.

The examples are those of tests/fuzzing.py.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Done, _refuse, bifurcate
from fuzzing import VALUES, fuzzed, time_is_over
from hypothesis import given
from hypothesis import strategies as st

from simulator.cli.output import LONGEST_ERROR
from simulator.inputs.hardware import profile_files
from simulator.inputs.scenario import scenario_files

# A user's own file may say what can hardly be true; the command line prints such warnings.
pytestmark = pytest.mark.filterwarnings("default::simulator.errors.OwnFileWarning")

CONFIGS = json.loads((Path(__file__).parents[1] / "data" / "hf_models.json").read_text())["cases"]
# Exit codes: answered, error, wrong usage, check failed.
CODES = (0, 1, 2, 3)

TYPED = """
0 1 2 16 8K 1M -1 1.5 1e9 0x10 8,192 nan inf -inf 1e-320 1e308 90% =1+1 µ 漢 /dev/null .
auto bf16 fp8 int4 fp32 flash sdpa_math ideal einsum vllm standard bifurcated eager graph
peak carried a=1,b=2x8 l4 gpt2 nowhere.toml nowhere/config.json code-sampling-8k
"""
WORDS = st.sampled_from([*TYPED.split(), "", " ", "\x1b[31m", "9" * 30, "9" * 400])
NUMBERS = ("--context", "-n", "--prompts", "--decoded", "--query-tokens", "--accepted-tokens")
NUMBERS += ("--gpu-memory-utilization", "--target-step-ms", "--price-per-hour", "--kv-heads")
NUMBERS += ("--most-samples", "--size-factor", "--target-kv-heads", "--output-tokens", "--tp")
NUMBERS += ("--max-batched-tokens", "--success-rate", "--target-request-s", "--routing-exponent")
TEXTS = ("-m", "-g", "--tree", "--kernel", "--dtype", "--kv-dtype", "--execution", "--engine")
TEXTS += ("--attention", "--constants", "--latent-form", "--kv-layout", "--format", "--rule")
FLAGS = ("--json", "--check", "--explain", "--nonsense")
COMMANDS = ("estimate", "compare", "generate", "plan", "tree", "tradeoff", "quality")
OPTIONS = st.one_of(
    st.tuples(st.sampled_from([*NUMBERS, *TEXTS]), WORDS | st.text(max_size=8)),
    st.tuples(st.sampled_from(FLAGS)),
)
LINES = st.one_of(
    st.sampled_from(["", "a = nan", "value = inf", "id = 1", "a.b.c = 1", "[peak]", "[[a]]", "= "]),
    st.sampled_from(["\0", "é = 1", 'name = "\\u001b[31m"', "samples = [0, 1, -1]", "verdict = 3"]),
)
CELLS = WORDS | st.sampled_from(["h100", "L40S", "4", "32", "128", "8192", "100", "bf16", '"', "#"])
ROWS = (
    "gpu,kernel,batch,q_heads,kv_heads,head_dim,kv_len,latency_us",
    "gpu,m,n,k,dtype,latency_us",
    "gpu,op,rows,width,bytes,latency_us",
    "gpu,collective,num_gpus,message_bytes,latency_us",
    "gpu,model,tp,batch,input_len,output_len,step_ms",
    "gpu,model,context_tokens,samples,attention,kernel,status,step_ms",
)


def asked(*words: str) -> Done | None:
    """Run a command and check how it ends; None where the time is over."""
    if time_is_over():
        return None
    done = bifurcate(*words)
    told = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert done.code in CODES, (words, done)
    assert "Traceback" not in done.err, (words, done.err)
    assert "a bug of ours" not in done.err, (words, done.err)
    assert "\x1b" not in done.err + done.out, words
    assert all(len(line) <= LONGEST_ERROR + len("error: ") for line in told), (words, told)
    if done.code in (1, 2) and "check" not in words:
        assert len(told) == 1, (words, done.err)
    if done.code in (0, 3) and "--json" in words and "--format" not in words:
        json.loads(done.out, parse_constant=_refuse)
    return done


def asked_of(path: Path, content: str, *commands: tuple[str, ...]) -> None:
    """Run commands on a file, and check that none of them changes it."""
    path.write_text(content, encoding="utf-8", errors="surrogatepass")
    before = path.read_bytes()
    for words in commands:
        asked(*words)
        assert path.read_bytes() == before, words


@fuzzed
@given(st.sampled_from(COMMANDS), st.lists(OPTIONS, max_size=5), st.booleans())
def test_command_lines(command: str, options: list[tuple[str, ...]], named: bool) -> None:
    """Options with any values: mostly of a model that is known."""
    typed = [word for option in options for word in option if "\x00" not in word]
    asked(command, *(("-m", "gpt2") if named and "-m" not in typed else ()), *typed)


@fuzzed
@given(st.sampled_from(CONFIGS), st.data())
def test_configs(tmp_path_factory: pytest.TempPathFactory, case: Any, data: st.DataObject) -> None:
    """A model's config.json with some values replaced or taken out."""
    config = dict(case["config"])
    keys = st.sampled_from(sorted(config)) | st.text(max_size=6)
    config |= data.draw(st.dictionaries(keys, VALUES, max_size=3))
    for key in data.draw(st.lists(keys, max_size=1)):
        config.pop(key, None)
    path = tmp_path_factory.mktemp("config") / "config.json"
    asked_of(
        path,
        json.dumps(config),
        ("models", "show", str(path), "--json"),
        ("estimate", "-m", str(path), "--json"),
        ("estimate", "-m", str(path), "--json", "-o", str(path)),
    )


@fuzzed
@given(st.data())
def test_toml_files(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """GPU profiles and scenarios with some lines replaced, doubled or taken out."""
    kind, known = data.draw(
        st.sampled_from([("gpus", profile_files()), ("scenarios", scenario_files())])
    )
    shipped = known[data.draw(st.sampled_from(sorted(known)))]
    lines = shipped.read_text(encoding="utf-8").splitlines()
    for place in data.draw(st.lists(st.integers(0, len(lines) - 1), min_size=1, max_size=3)):
        old = lines[place]
        key = old.partition("=")[0]
        value = json.dumps(data.draw(VALUES)).replace("NaN", "nan").replace("Infinity", "inf")
        figure = f'{key}= {{ value = {value}, source = "a guess" }}'
        lines[place] = data.draw(
            LINES | st.sampled_from([f"{key}= {value}", figure, f"{old}\n{old}"])
        )
    path = tmp_path_factory.mktemp("toml") / shipped.name
    ask = {
        "gpus": ("compare", "-m", "gpt2", "--json", "-g", str(path)),
        "scenarios": ("sweep", str(path), "--dry-run"),
    }
    shown = (kind, "show", str(path), "--json")
    asked_of(path, "\n".join(lines), shown, (kind, "check", str(path)), ask[kind])


@fuzzed
@given(st.sampled_from(ROWS), st.lists(st.lists(CELLS, min_size=5, max_size=9), max_size=6))
def test_measured_rows(
    tmp_path_factory: pytest.TempPathFactory, header: str, rows: list[list[str]]
) -> None:
    """Rows with any cells: each comes back with its outcome, in a file of its own."""
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    told = path.with_name("told.csv")
    width = header.count(",") + 1
    lines = [",".join(["h100", *row][:width]) for row in rows]
    asked_of(
        path,
        "\n".join([header, *lines]),
        ("validate", str(path), "-o", str(told), "--json"),
        ("validate", str(path), "-o", str(path)),
    )


@fuzzed
@given(st.lists(st.lists(CELLS, min_size=3, max_size=4), max_size=6))
def test_tables_of_tries_and_runs(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    """Counts of tries and training runs with any cells."""
    folder = tmp_path_factory.mktemp("tables")
    body = "\n".join(",".join(row) for row in rows)
    counts, runs = folder / "counts.csv", folder / "runs.csv"
    question = ("quality", "-m", "gpt2", "--json", "--counts", str(counts))
    asked_of(counts, f"problem,samples,correct\n{body}", question)
    asked_of(runs, f"parameters,loss,kv_heads,heads\n{body}", ("scaling", str(runs), "--json"))
