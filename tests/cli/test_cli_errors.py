"""Every mistake gets a clear line and a hint on stderr, exit code 1 or 2, and nothing else."""

import json
from pathlib import Path

import pytest
from command_line import bifurcate

M = ("-m", "llama-3.1-8b")
ANSWERS = ("estimate", "compare", "generate", "plan")

# What is typed, the exit code, and the words the line must have.
MISTAKES: list[tuple[tuple[str, ...], int, tuple[str, ...]]] = [
    # The command line itself.
    (("estimat", *M), 2, ("No such command 'estimat'", "estimate")),
    (("plan", *M, "--tp", "2", "--gpus", "4"), 2, ("--gpus", "--tp", "only one")),
    (("plan", *M, "--tp", "1", "--gpus", "4"), 2, ("--gpus", "--tp", "only one")),
    (("plan", *M, "--prices", "p", "--price-per-hour", "1"), 2, ("--prices", "--price-per-hour")),
    (("plan", *M, "--tpot-ms", "30"), 1, ("--tpot-ms belongs to a load", "--requests-per-s")),
    (("plan", *M, "--max-num-seqs", "8"), 1, ("--max-num-seqs", "--requests-per-s")),
    (
        ("plan", *M, "--requests-per-s", "1", "--target-step-ms", "9"),
        1,
        ("--target-step-ms", "--tpot-ms"),
    ),
    (("serve", *M, "--decoded-tokens", "9"), 2, ("--decoded-tokens", "--output-tokens")),
    (("plan", *M, "--requests-per-s", "0"), 1, ("--requests-per-s", "not positive")),
    (("serve", *M, "--prompts", "4"), 1, ("--prompts = 4", "one prompt")),
    (("serve", *M, "--cached-tokens", "9K"), 1, ("--cached-tokens = 9,216", "8,191")),
    (("serve", *M, "-n", "9", "--max-num-seqs", "8"), 1, ("--max-num-seqs = 8", "9 samples")),
    (("plan", *M, "--prices", "nowhere.toml"), 1, ("cannot read nowhere.toml",)),
    (("compare", *M, "-g", "l4", "--gpu", "h100"), 2, ("--gpu takes one value", "2 times")),
    (("estimate", *M, *M, *M), 2, ("--model takes one value", "3 times")),
    (("estimate", *M, "-n4", "--samples", "4"), 2, ("--samples takes one value",)),
    (("gpus", "show", "l4", "-o", "a", "-o", "b"), 2, ("--output takes one value",)),
    (("sweep", "one-sample", "--constnts", "peak"), 2, ("did you mean --constants",)),
    (("sweep", "one-sample", "--layers", "3"), 2, ("--layers: pages and grids name their models",)),
    (("sweep", "llama-3.1-8b", "-m", "gpt2"), 2, ("unexpected 'llama-3.1-8b'", "'gpt2'")),
    (("compare", "llama-3.1-8b", "-m", "gpt2"), 2, ("unexpected 'llama-3.1-8b'", "'gpt2'")),
    (("explore", *M, "--engine", "sglang"), 2, ("--engine", "no such setting")),
    (("serve", *M, "-n", "1,2", "--figure", "a.svg"), 2, ("samples: one value", "compare")),
    (("compare", *M, "-n", "4,4"), 2, ("'4,4' lists a size twice",)),
    (("compare", *M, "--context", "8,192"), 2, ("number or a list", "'8192' or '8, 192'")),
    (("compare", *M, "--dtype", "int8", "--quantization", "fp8"), 2, ("two formats", "only one")),
    (("gpus", "h100"), 2, ("No such command 'h100'", "bifurcate gpus show h100")),
    (("models", "lst"), 2, ("No such command 'lst'", "list")),
    (("estimate", *M, "extra"), 2, ("extra",)),
    (("estimate", "--modl", "gpt2"), 2, ("--modl", "--model")),
    (("estimate", "-m"), 2, ("-m", "requires an argument")),
    (
        ("estimate",),
        2,
        ("no model", "such as llama-3.1-8b", "--layers", "--hidden-size", "--heads"),
    ),
    (("compare", *M, "--attention", "standard"), 2, ("--attention",)),
    (("models", "shw"), 2, ("'shw'", "show")),
    (("models", "show"), 2, ("Missing argument",)),
    (("sweep",), 2, ("nothing is asked", "bifurcate scenarios", "-n 1,4,16")),
    (("gpus", "--json", "show", "l4"), 2, ("after 'show'",)),
    (("estimate", *M, "--json", "--format", "csv"), 2, ("--json", "--format csv")),
    (("estimate", *M, "--format", "xml"), 2, ("'xml'", "table, json, csv")),
    # Names.
    (("estimate", "-m", "llama-3.1-8c"), 1, ("'llama-3.1-8c'", "did you mean 'llama-3.1-8b'?")),
    (("estimate", "-m", ""), 1, ("unknown model ''",)),
    (("estimate", *M, "-g", "h100sxm"), 1, ("'h100sxm'", "did you mean 'h100-sxm'?")),
    (("plan", *M, "-g", "nope"), 1, ("'nope'", "bifurcate gpus")),
    (("gpus", "show", "rtx-3099"), 1, ("did you mean 'rtx-3090'?",)),
    (("models", "show", "gpt-2x"), 1, ("did you mean 'gpt2'?",)),
    (("scenarios", "show", "one-sampel"), 1, ("did you mean 'one-sample'?",)),
    (("sweep", "one-sampel"), 1, ("did you mean 'one-sample'?",)),
    (("estimate", *M, "--kernel", "flsh"), 2, ("'flsh'", "did you mean 'flash'?")),
    (("estimate", *M, "--attention", "bifurcate"), 2, ("did you mean 'bifurcated'?",)),
    (("estimate", *M, "--kv-layout", "copy"), 2, ("did you mean 'copies'?",)),
    (("estimate", *M, "--execution", "cuda"), 2, ("graph, compiled, eager",)),
    (("estimate", *M, "--constants", "peaks"), 2, ("did you mean 'peak'?",)),
    (("estimate", *M, "--dtype", "bf17"), 1, ("bf17", "did you mean 'bf16'?")),
    (("estimate", *M, "--kv-dtype", "fp9"), 1, ("--kv-dtype", "'fp9'", "int4")),
    # Sizes.
    (("estimate", *M, "-n", "0"), 1, ("samples = 0",)),
    (("estimate", *M, "-n", "-1"), 2, ("--samples", "'-1'", "8K (8192)")),
    (("estimate", *M, "-n", "1.5"), 2, ("'1.5' is not a whole number",)),
    (("estimate", *M, "-n", "many"), 2, ("'many'",)),
    (("estimate", *M, "-n", "1e30"), 2, ("'1e30'",)),
    (("estimate", *M, "-n", "99999999999"), 1, ("samples = 99999999999",)),
    (("estimate", *M, "-n", "1000000k", "--context", "1000000k"), 1, ("1e+15",)),
    (("estimate", *M, "--context", "-5"), 2, ("--context", "'-5'")),
    (("estimate", *M, "--context", "nan"), 2, ("'nan'",)),
    (("estimate", *M, "--prompts", "0"), 1, ("--prompts = 0",)),
    (("estimate", *M, "--output-len", "0"), 2, ("--output-tokens", "at least 1")),
    (("estimate", *M, "--decoded", "5", "--output-len", "5"), 2, ("give only one",)),
    (("generate", *M, "--context", "0"), 1, ("--context-tokens = 0", "at least one token")),
    (("generate", *M, "--decoded", "5"), 2, ("--decoded-tokens", "--output-tokens")),
    (("generate", *M, "--accepted-tokens", "4"), 1, ("--accepted-tokens = 4",)),
    (("generate", *M, "--output-len", "1000000k"), 1, ("--output-tokens",)),
    # Shapes that cannot be.
    (("estimate", *M, "--kv-heads", "5"), 1, ("heads (32)", "1, 2, 4, 8, 16, 32")),
    (("estimate", *M, "--kv-heads", "0"), 1, ("--kv-heads = 0",)),
    (("estimate", *M, "--tp", "3"), 1, ("--tensor-parallel-size = 3", "1, 2, 4, 8, 16, 32")),
    (("estimate", *M, "--tp", "0"), 1, ("--tensor-parallel-size = 0",)),
    (("plan", *M, "--gpus", "0"), 1, ("at least 1 GPU",)),
    (("plan", *M, "-g", "h100", "--gpus", "3"), 1, ("nothing to plan with", "3")),
    (("estimate", *M, "--layers", "3"), 2, ("--layers", "without --model")),
    (("estimate", "--layers", "3"), 2, ("--hidden-size",)),
    (("estimate", "--layers", "0", "--hidden-size", "128", "--heads", "4"), 1, ("layers = 0",)),
    (("estimate", "--layers", "3", "--hidden-size", "100", "--heads", "3"), 1, ("--head-dim",)),
    (
        ("estimate", "--layers", "99999999", "--hidden-size", "999999999", "--heads", "1"),
        1,
        ("parameters", "check its sizes"),
    ),
    (("estimate", "-m", "deepseek-v3", "--kernel", "sdpa_math"), 1, ("latent", "sdpa_math")),
    (("estimate", *M, "--latent-form", "mixed"), 1, ("--latent-form = mixed", "no latent")),
    (("compare", *M, "--latent-form", "naive"), 2, ("'naive' is not one of auto, absorbed",)),
    (("estimate", *M, "--assume", "llama"), 2, ("--assume", "config.json")),
    # Numbers.
    (("estimate", *M, "--gpu-memory-utilization", "0"), 1, ("--gpu-memory-utilization", "(0, 1]")),
    (("estimate", *M, "--gpu-memory-utilization", "1.5"), 1, ("1.5", "(0, 1]")),
    (("estimate", *M, "--gpu-memory-utilization", "nan"), 1, ("nan", "(0, 1]")),
    (("estimate", *M, "--gpu-memory-utilization", "most"), 2, ("'most' is not a number",)),
    (("generate", *M, "--price-per-hour", "-1"), 1, ("--price-per-hour = -1.0",)),
    (("generate", *M, "--price-per-hour", "nan"), 1, ("--price-per-hour = nan",)),
    (("generate", *M, "--price-per-hour", "free"), 2, ("'free' is not a number",)),
    (("plan", *M, "--target-step-ms", "0"), 1, ("--target-step-ms", "not positive")),
    (("plan", *M, "--target-step-ms", "nan"), 1, ("--target-step-ms", "not a number up to")),
    (("tradeoff", *M, "--target-step-ms", "inf"), 1, ("--target-step-ms", "not a number up to")),
    (("generate", *M, "--price-per-hour", "1e300"), 1, ("--price-per-hour", "not a number up to")),
    # Files.
    (("estimate", "-m", "nowhere/config.json"), 1, ("nowhere/config.json", "No such file")),
    (("estimate", "-m", "./"), 1, ("config.json",)),
    (("estimate", *M, "-g", "nowhere.toml"), 1, ("nowhere.toml", "No such file")),
    (("serve", *M, "--requests-per-s", "1", "--percentile", "100"), 1, ("try 90 or 99",)),
    (("sweep", "nowhere.toml"), 1, ("nowhere.toml", "No such file")),
    (("estimate", *M, "-o", "answer.xlsx"), 1, ("'answer.xlsx'", ".json, .csv, .txt")),
    (("estimate", *M, "-o", "nowhere/a.json"), 1, ("nowhere/a.json", "No such file")),
    (("estimate", *M, "-o", "."), 1, ("it is a folder",)),
    (("gpus", "-o", "nowhere/a.csv"), 1, ("nowhere/a.csv",)),
    (("sweep", "one-sample", "-o", "grid.json"), 1, ("grid.json", ".csv or .parquet")),
    (("sweep", "one-sample", "-o", "nowhere/grid.csv"), 1, ("nowhere/grid.csv",)),
]


@pytest.mark.parametrize(("typed", "code", "words"), MISTAKES, ids=lambda part: str(part)[:60])
def test_a_mistake_gets_a_clear_line_and_a_hint(
    typed: tuple[str, ...],
    code: int,
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Together they name what is wrong; stdout stays empty, and no file is left behind."""
    monkeypatch.chdir(tmp_path)
    done = bifurcate(*typed)
    line = done.told
    assert done.code == code, line
    for word in words:
        assert word in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ANSWERS)
def test_every_answer_checks_its_names(command: str) -> None:
    """Every command that answers refuses an unknown model and an unknown GPU."""
    assert "did you mean 'gpt2'?" in bifurcate(command, "-m", "gpt-2x").told
    assert "did you mean 'L40S'?" in bifurcate(command, *M, "-g", "l40sx").told


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not json", "is not JSON"),
        ("[1, 2]", "config.json"),
        ("{}", "model_type"),
        ('{"model_type": "llama"}', "missing"),
        ('{"model_type": "mystery", "hidden_size": 64}', "no known type fits"),
        ('{"model_type": "t5", "is_encoder_decoder": true}', "is an encoder-decoder"),
        (
            (
                '{"model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 4, '
                '"intermediate_size": 64, "vocab_size": 10, "hidden_size": NaN}'
            ),
            "hidden_size",
        ),
    ],
)
def test_a_file_that_is_no_config(text: str, words: str, tmp_path: Path) -> None:
    """A config.json that is not one, or not of a known type, is refused in one line."""
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8")
    done = bifurcate("estimate", "-m", str(path))
    assert done.code == 1
    assert words in done.told


@pytest.mark.parametrize("group", ["gpus", "scenarios"])
def test_a_check_names_a_file_that_is_not_there(group: str) -> None:
    """It is a finding like others: one line, and exit code 1."""
    done = bifurcate(group, "check", "nowhere.toml")
    assert done.code == 1
    assert done.err == "cannot read nowhere.toml: No such file or directory\n"


def test_a_missing_file_is_told_of_the_nearest_in_its_folder(tmp_path: Path) -> None:
    """Whoever reads it: a scenario, or rows; and nothing where no name is near."""
    (tmp_path / "study.toml").touch()
    (tmp_path / "rows.csv").touch()
    for command, near in (("sweep", "study.toml"), ("validate", "rows.csv")):
        told = bifurcate(command, str(tmp_path / near.replace(".", "s."))).told
        assert f"did you mean '{tmp_path / near}'?" in told
    assert "did you mean" not in bifurcate("sweep", str(tmp_path / "nowhere.toml")).told


def test_assume_reads_an_unknown_type(tmp_path: Path) -> None:
    """--assume llama is the way out of an unknown model_type, and the folder will do as name."""
    config = {
        "model_type": "mystery",
        "hidden_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "intermediate_size": 1024,
        "vocab_size": 1000,
        "max_position_embeddings": 2048,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    }
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    answer = bifurcate("estimate", "-m", str(tmp_path), "--assume", "llama", "--json").json
    # Two tables, four layers of q, k, v, o, gate, up, down and two norms, and the last norm.
    layer = 4 * 512 * 512 + 3 * 512 * 1024 + 2 * 512
    assert answer["inputs"]["parameters"] == 2 * 1000 * 512 + 4 * layer + 512


@pytest.mark.parametrize("text", ["", "schema_version = ", "schema_version = 1"])
def test_a_file_that_is_no_profile(text: str, tmp_path: Path) -> None:
    """A profile that is not TOML, or lacks its keys, is refused in one line that names it."""
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    done = bifurcate("estimate", *M, "-g", str(path))
    assert done.code == 1
    assert str(path) in done.told


def test_a_context_beyond_the_model_is_a_warning() -> None:
    """More tokens than the model was made for are answered, with a warning."""
    answer = bifurcate("estimate", "-m", "gpt2", "--context", "8K", "--json").json
    assert any("Warning" in note and "1,024" in note for note in answer["notes"])


def test_our_own_bugs_are_owned_up_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is not the user's says so in one line, and shows where it is on request."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("deep inside")

    monkeypatch.setattr("simulator.api.estimate", broken)
    monkeypatch.delenv("BIFURCATE_DEBUG", raising=False)
    done = bifurcate("estimate", *M)
    assert done.code == 1
    line, hint = done.err.splitlines()
    assert line == "error: a bug of ours, not of yours: ZeroDivisionError: deep inside"
    assert "BIFURCATE_DEBUG" in hint
    monkeypatch.setenv("BIFURCATE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        bifurcate("estimate", *M)


def test_a_long_mistake_keeps_its_beginning_and_its_end() -> None:
    """The line has at most 300 characters, and the hint says the way out."""
    line, hint = bifurcate("estimate", "-m", "x" * 1000).err.splitlines()
    assert len(line) <= len("error: ") + 300
    assert line.startswith("error: unknown model 'xxx")
    assert line.endswith("xxx'")
    assert hint.endswith("or give the path of a config.json)")


def test_no_arguments_show_the_help() -> None:
    """The bare command shows its help on stdout, with the code of misuse."""
    done = bifurcate()
    assert done.code == 2
    assert "estimate" in done.out
    assert done.err == ""


# What people type who know an engine, other programs or other names; and what the answer or the
# error then says. None of it may be answered as if it were something else.
UNDERSTOOD: list[tuple[tuple[str, ...], str]] = [
    (("llama-3.1-8b", "--batch-size", "16"), "16 sequences, 1 from each of 16 8K-token contexts"),
    (("llama-3.1-8b", "--batch", "8"), "8 sequences, 1 from each of 8 8K-token contexts"),
    (("llama-3.1-8b", "-b", "8"), "8 sequences, 1 from each of 8 8K-token contexts"),
    (("llama-3.1-8b", "--batch-size", "4", "-n", "2"), "8 sequences, 2 from each of 4"),
    (("llama3.1:8b", "-n", "4"), "llama-3.1-8b on H100 SXM5 80GB"),
    (("--model-path", "llama-3.1-8b", "--best-of", "4"), "4 sequences from an 8K-token context"),
    (("llama-3.1-8b", "--n=4"), "4 sequences from an 8K-token context"),
    (("llama-3.1-8b", "--batch_size", "8"), "8 sequences, 1 from each of 8 8K-token contexts"),
    (("llama-3.1-8b", "--isl", "4K", "--osl", "128"), "4K-token context, 127 own tokens each"),
    (("llama-3.1-8b", "-tp", "2"), "llama-3.1-8b on 2 x H100 SXM5 80GB"),
    (("llama-3.1-8b", "--seq-len", "4K"), "16 sequences from a 4K-token context"),
    (("llama-3.1-8b", "--dtype", "auto"), "flash kernel, graph, bf16\n"),
    (("llama-3.1-8b", "--dtype", "half", "--quantization", "fp8"), "graph, fp8 with bf16 KV"),
    (("llama-3.1-8b", "--quantization", "gptq"), "graph, int4 with bf16 KV"),
    (("llama-3.1-8b", "--enable-prefix-caching"), "standard, one stored context"),
    (("llama-3.1-8b", "-g", "a6000"), "llama-3.1-8b on RTX A6000"),
    (("llama-3.1-8b", "--pp-size", "2"), "llama-3.1-8b on 2 x H100"),
    (("llama-3.1-8b", "--context", "4,096"), "16 sequences from a 4K-token context"),
]
HINTED: list[tuple[tuple[str, ...], str]] = [
    (("llama",), "did you mean one of llama-65b, llama-2-7b"),
    (("gpt-4o",), "its sizes are not public"),
    (("llama-3.1-8b", "-g", "M2"), "NVIDIA and AMD"),
    (("llama-3.1-8b", "-g", "tpu-v5e"), "NVIDIA and AMD"),
    (("llama-3.1-8b", "h100"), "write -g before a GPU"),
    (("llama-3.1-8b", "--tree", "system:2K"), "write NAME=TOKENSxBRANCHES"),
    (("llama-3.1-8b", "-g", "h100,a100"), "'h100,a100' is not one GPU"),
    (("llama-3.1-8b", "--gpu-memory-utilization", "95"), "write 0.95"),
    (("llama-3.1-8b", "-g", "8xh100"), "write -g h100 --tp 8"),
    (("llama-3.1-8b", "-g", "l40sx4"), "write -g l40s --tp 4"),
    (("llama-3.1-8b", "-g", "mi300"), "did you mean 'mi300x'?"),
    (("llama-3.1-8b", "-g", "NVIDIA", "A100", "80GB"), "in quotes"),
    (("llama-3.1-8b", "--max-model-len", "8K"), "--context is the length"),
    (("llama-3.1-8b", "--max-num-seqs", "8"), "-n is the samples of one prompt"),
    (("llama-3.1-8b", "--enforce-eager"), "--execution eager"),
    (("llama-3.1-8b", "--users", "8"), "a load, which 'serve', 'sweep', 'generate' and 'tradeoff'"),
    (("llama-3.1-8b", "--qps", "8"), "a load, which 'serve', 'sweep' and 'plan'"),
    (("llama-3.1-8b", "--num-gpus", "2"), "--tp is the number of GPUs"),
    (("deepseek-v3", "--enable-expert-parallel"), "--ep is the number of parts"),
    (("llama-3.1-8b", "--samples", "2", "--n", "4"), "2 times"),
    (("llama-3.1-8b", "--gpu-memory-utilization", "90%"), "write 0.9"),
    (("llama-3.1-8b", "--context", "8KB"), "write 8192, 8K (8192) or 8k (8000)"),
    (("llama-3.1-8b", "--dtpye", "fp8"), "or --dtype"),
    (("deepseek-r1-distill-qwen-7b",), "it has the shape of its base"),
    (("llama-3.1-8b", "--attention", "cascade"), "times both kinds of attention"),
    (("llama-3.1-8b", "-g", "h100", "-g", "l4"), "plan -g A,B"),
]


@pytest.mark.parametrize(("typed", "words"), UNDERSTOOD, ids=lambda part: str(part)[:60])
def test_what_engines_users_type_is_understood(typed: tuple[str, ...], words: str) -> None:
    """The answer names the question as it was meant, and the numbers are of that question."""
    assert words in bifurcate("compare", *typed).text


@pytest.mark.parametrize(("typed", "words"), HINTED, ids=lambda part: str(part)[:60])
def test_what_cannot_be_understood_gets_the_hint_that_helps(
    typed: tuple[str, ...], words: str
) -> None:
    """The hint names what to write instead, by meaning and not by spelling alone."""
    assert words in bifurcate("compare", *typed).told


def test_another_spelling_of_an_option_is_said() -> None:
    """A word of an engine's is never read in silence."""
    done = bifurcate("plan", *M, "-g", "l4,l40s", "--request-rate", "1")
    assert done.err == "note: --request-rate is read as --requests-per-s\n"
    assert "l40s" in done.text
    done = bifurcate("plan", *M, "--tpot", "15")
    assert done.err.startswith("note: --tpot is read as --tpot-ms\n")
    assert "give --requests-per-s too, or --target-step-ms" in " ".join(done.told.split())


def test_a_model_without_a_command_is_told_the_command() -> None:
    """What most mean by a model's name alone."""
    assert "bifurcate compare llama-3.1-8b" in bifurcate("llama-3.1-8b").told


@pytest.mark.parametrize("words", [("help",), ("help", "plan"), ("version",), ("-v",)])
def test_help_and_version_are_commands_too(words: tuple[str, ...]) -> None:
    """As the options they stand for."""
    option = "--help" if words[0] == "help" else "--version"
    assert bifurcate(*words).text == bifurcate(*words[1:], option).text
