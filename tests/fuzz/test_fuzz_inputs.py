"""Whatever is typed or lies in a file: an answer, or one short line, and no input is changed.

The examples are those of tests/fuzzing.py.
"""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Done, _refuse, bifurcate
from fuzzing import VALUES, fuzzed, time_is_over
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command

from simulator.cli.command import OUTPUTS
from simulator.cli.main import build
from simulator.cli.output import LONGEST_ERROR
from simulator.inputs.hardware import profile_files
from simulator.inputs.scenario import scenario_files

# A user's own file may say what can hardly be true; the command line prints such warnings.
pytestmark = pytest.mark.filterwarnings("default::simulator.errors.OwnFileWarning")

CONFIGS = [
    case["config"]
    for name in ("hf_models", "hf_hybrids", "hf_varied_models")
    for case in json.loads((Path(__file__).parents[1] / "data" / f"{name}.json").read_text())[
        "cases"
    ]
]
TYPES = sorted({config["model_type"] for config in CONFIGS})
# Exit codes: answered, error, wrong usage, check failed.
CODES = (0, 1, 2, 3)

TYPED = """
0 1 2 16 8K 1M -1 1.5 1e9 0x10 8,192 nan inf -inf 1e-320 1e308 90% =1+1 µ 漢 /dev/null .
auto bf16 fp8 int4 fp32 flash sdpa_math ideal einsum vllm standard bifurcated eager graph
peak carried a=1,b=2x8 l4 gpt2 nowhere.toml nowhere/config.json code-sampling-8k mqa gqa mla
"""
WORDS = st.sampled_from([*TYPED.split(), "", " ", "\x1b[31m", "9" * 30, "9" * 400])
COMMANDS = ("estimate", "compare", "generate", "plan", "serve", "tree", "tradeoff", "quality")
# Their options, and whether each takes a value; none that names a file to write.
OPTIONS = {
    command: st.sampled_from(
        [
            (item.opts[0], not getattr(item, "is_flag", False))
            for item in get_command(build(command)).commands[command].params
            if item.name not in OUTPUTS and item.opts[0].startswith("-")
        ]
    )
    for command in COMMANDS
}
LINES = st.one_of(
    st.sampled_from(["", "a = nan", "value = inf", "id = 1", "a.b.c = 1", "[peak]", "[[a]]", "= "]),
    st.sampled_from(["\0", "é = 1", 'name = "\\u001b[31m"', "samples = [0, 1, -1]", "verdict = 3"]),
)
CELLS = WORDS | st.sampled_from(["h100", "L40S", "4", "32", "128", "8192", "100", "bf16", '"', "#"])
# Cells of runs: mostly numbers, names of families and where freed parameters go, and sets of runs.
SIZES = st.floats(0.5, 1e9).map(repr) | st.integers(1, 10**9).map(str) | CELLS
FAMILIES = st.sampled_from(["mha", "mqa", "gqa", "gqa-4", "MLA", "mlp", "heads", "nothing"]) | CELLS
SETS = st.sampled_from(["1", "1", "2", "a-1", "a-2", ""]) | CELLS
# A result of a serving client.
RESULT = {
    "mean_tpot_ms": 12.5,
    "mean_ttft_ms": 100,
    "completed": 100,
    "total_input_tokens": 100_000,
    "total_output_tokens": 20_000,
    "max_concurrency": 8,
    "model_id": "gpt2",
    "backend": "vllm",
    "gpu": "h100",
    "tensor_parallel": 1,
    "weights_dtype": "bf16",
    "kv_dtype": "bf16",
    "length_ratio": 0.8,
}
ROWS = (
    "gpu,kernel,batch,q_heads,kv_heads,head_dim,kv_len,latency_us",
    "gpu,m,n,k,dtype,latency_us",
    "gpu,op,rows,width,bytes,latency_us",
    "gpu,collective,num_gpus,message_bytes,latency_us",
    "gpu,model,tp,batch,input_len,output_len,step_ms",
    "gpu,model,context_tokens,samples,attention,kernel,status,step_ms",
    "gpu,model,input_len,output_len,concurrency,engine,tensor_parallel,kv_dtype,tpot_ms",
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
@given(st.sampled_from(COMMANDS), st.booleans(), st.data())
def test_command_lines(command: str, named: bool, data: st.DataObject) -> None:
    """Options with any values: mostly of a model that is known."""
    words = [command]
    for option, takes_value in data.draw(st.lists(OPTIONS[command], max_size=5)):
        words += [option, data.draw(WORDS | st.text(max_size=8))] if takes_value else [option]
    words += ["-m", "gpt2"] if named and "--model" not in words else []
    asked(*(word for word in words if "\x00" not in word))


@fuzzed
@given(st.sampled_from(CONFIGS), st.data())
def test_configs(
    tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any], data: st.DataObject
) -> None:
    """A model's config.json with some values replaced or taken out, also within its parts."""
    config = copy.deepcopy(config)
    for _ in range(data.draw(st.integers(0, 3))):
        part = config
        while inner := [each for each in part.values() if isinstance(each, dict) and each]:
            if data.draw(st.booleans()):
                break
            part = data.draw(st.sampled_from(inner))
        key = data.draw(st.sampled_from(sorted(part) or [""]) | st.text(max_size=6))
        if data.draw(st.integers(0, 3)):
            listed = part.get(key)
            value = copy.deepcopy(data.draw(VALUES))
            if isinstance(listed, list) and listed and data.draw(st.booleans()):
                listed[data.draw(st.integers(0, len(listed) - 1))] = value
            else:
                part[key] = value
        else:
            part.pop(key, None)
    path = tmp_path_factory.mktemp("config") / "config.json"
    assume = ("--assume", data.draw(st.sampled_from(TYPES) | st.text(max_size=4)))
    asked_of(
        path,
        json.dumps(config),
        ("models", "show", str(path), "--json"),
        ("compare", "-m", str(path), "--json"),
        ("estimate", "-m", str(path), "--json", *assume),
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
    known = ["h100", "gpt2"] if ",model," in header else ["h100"]
    lines = [",".join([*known, *row][:width]) for row in rows]
    asked_of(
        path,
        "\n".join([header, *lines]),
        ("validate", str(path), "-o", str(told), "--json"),
        ("validate", str(path), "-o", str(path)),
    )


@fuzzed
@given(
    st.dictionaries(st.sampled_from(sorted(RESULT)) | st.text(max_size=4), VALUES | CELLS),
    st.data(),
)
def test_results_of_serving_clients(
    tmp_path_factory: pytest.TempPathFactory, changed: dict[str, Any], data: st.DataObject
) -> None:
    """A result with any values, alone or in lines."""
    path = tmp_path_factory.mktemp("results") / data.draw(st.sampled_from(["a.json", "a.jsonl"]))
    results = [RESULT | changed, RESULT][: data.draw(st.integers(1, 2))]
    asked_of(
        path,
        "\n".join(map(json.dumps, results)),
        ("validate", str(path), "-o", str(path.with_name("told.csv")), "--json"),
        ("validate", str(path), "-g", "l4", "-o", str(path)),
    )


@fuzzed
@given(st.dictionaries(st.sampled_from(["l4", "h100", "L40S", "a 'b'"]) | st.text(), VALUES))
def test_prices(tmp_path_factory: pytest.TempPathFactory, prices: dict[str, Any]) -> None:
    """A file of prices with any names and values."""
    path = tmp_path_factory.mktemp("prices") / "prices.toml"
    named = {name: json.dumps(value) for name, value in prices.items()}
    lines = (f"{json.dumps(name)} = {value}" for name, value in named.items())
    text = "\n".join(lines).replace("NaN", "nan").replace("Infinity", "inf")
    load = ("--requests-per-s", "1", "--tpot-ms", "50")
    question = ("plan", "-m", "gpt2", "--json", "--prices", str(path))
    asked_of(path, text, question, (*question, *load), (*question, "-o", str(path)))


@fuzzed
@given(st.text(max_size=8) | st.sampled_from(["abc", "../..", "/", "abc\n"]), st.data())
def test_the_hubs_cache(
    tmp_path_factory: pytest.TempPathFactory, commit: str, data: st.DataObject
) -> None:
    """Any commit in a branch's file, and any file in the place of another."""
    hub = tmp_path_factory.mktemp("hub")
    model = hub / "models--some--model"
    config = model / "snapshots" / "abc" / "config.json"
    ref = model / "refs" / "main"
    for path, content in ((config, json.dumps(data.draw(VALUES))), (ref, commit)):
        path.parent.mkdir(parents=True)
        kind = data.draw(st.sampled_from(["file", "file", "folder", "loop", "none"]))
        if kind == "file":
            path.write_text(content, encoding="utf-8", errors="surrogatepass")
        elif kind == "folder":
            path.mkdir()
        elif kind == "loop":
            path.symlink_to(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_CACHE", str(hub))
        asked("estimate", "-m", "some/model", "--json")


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


@fuzzed
@given(st.lists(st.tuples(SIZES, SIZES, FAMILIES, SETS, SETS, FAMILIES), max_size=12))
def test_runs_of_studies(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]]
) -> None:
    """Runs of several sets, most of which can be compared."""
    path = tmp_path_factory.mktemp("studies") / "runs.csv"
    header = "parameters,loss,family,study,tokens,matched_by"
    tradeoff = ("tradeoff", "-m", "gpt2", "--family", "mqa", "--runs", str(path), "--json")
    text = "\n".join([header, *map(",".join, rows)])
    asked_of(path, text, ("scaling", str(path), "--json"), tradeoff)
