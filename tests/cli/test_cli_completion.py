"""Shell completion really completes commands, options and the names of models and GPUs."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from command_line import bifurcate

from simulator.cli import options as words

# Has Typer take the shell's name, not look which shell runs it: tests may run from none.
NAMED = "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"
COMMAND = Path(sysconfig.get_path("scripts")) / "bifurcate"
CASES = {
    "est": "estimate",
    "estimate --model llama-3.1-8": "llama-3.1-8b",
    "compare -m GPT-OSS-2": "",
    "estimate --gpu h100-s": "h100-sxm",
    "plan -g mi300": "mi300x",
    "sweep one-sa": "one-sample",
    "gpus show rtx-509": "rtx-5090",
    "estimate --kernel sd": "sdpa_math",
    "estimate --dtype int": "int8 int4",
    "estimate --tensor-parallel-": "--tensor-parallel-size",
}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """--show-completion prints a script for the shell it is asked from."""
    monkeypatch.setenv(NAMED, "1")
    assert f"_BIFURCATE_COMPLETE=complete_{shell}" in bifurcate("--show-completion", shell).text


@pytest.mark.skipif(not (COMMAND.exists() and shutil.which("bash")), reason="needs bash, installed")
def test_installed_completion_completes_in_bash(tmp_path: Path) -> None:
    """After --install-completion a new bash completes every case."""
    path = f"{COMMAND.parent}:{os.environ['PATH']}"
    env = os.environ | {"HOME": str(tmp_path), "PATH": path, NAMED: "1"}
    install = [str(COMMAND), "--install-completion", "bash"]
    done = subprocess.run(install, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [
        'words() { COMP_WORDS=(bifurcate "$@"); COMP_CWORD=$#; COMPREPLY=();',
        '  "$function" bifurcate "${COMP_WORDS[COMP_CWORD]}"; echo "${COMPREPLY[*]}"; }',
        'function=$(complete -p bifurcate | sed "s/.*-F \\([^ ]*\\) .*/\\1/")',
    ]
    for typed in CASES:
        words = typed.split(" ")
        lines.append("words " + " ".join(f"'{word}'" for word in words))
    script = tmp_path / "try.sh"
    script.write_text(f"source {tmp_path}/.bashrc\n" + "\n".join(lines), encoding="utf-8")
    done = subprocess.run(
        [shutil.which("bash") or "bash", "--norc", str(script)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert dict(zip(CASES, done.stdout.split("\n"), strict=False)) == CASES


def test_other_names_complete_too() -> None:
    """Scenarios, model types and formats complete by their beginning, whatever its case."""
    assert words.complete_scenarios("one-K") == ["one-kv-head-per-gpu"]
    assert words.complete_types("Gemma3") == ["gemma3", "gemma3_text", "gemma3n", "gemma3n_text"]
    assert words.complete_weights("FP") == ["fp16", "fp32", "fp8", "fp8_block"]
    assert words.complete_weights("a") == ["awq", "auto"]
    assert words.complete_caches("nv") == ["nvfp4"]
    assert words.complete_models("GPT-OSS-2") == ["gpt-oss-20b"]
    assert words.complete_gpus("A100-SXM") == ["a100-sxm-40gb", "a100-sxm-80gb"]


def test_completion_starts_as_fast_as_the_command() -> None:
    """Completing a name loads nothing heavy: people wait for it at every key."""
    code = (
        "import sys; from simulator.cli.options import complete_models, complete_gpus; "
        "assert complete_models('gpt2') == ['gpt2']; assert 'l40s' in complete_gpus('l40'); "
        "assert not {'numpy', 'pandas', 'rich'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
