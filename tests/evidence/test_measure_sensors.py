"""What the driver is asked about a card, and what is made of silence."""

import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from simulator.evidence.measure.rows import SensorReading  # noqa: E402
from simulator.evidence.measure.sensors import Sensors  # noqa: E402


@pytest.fixture(autouse=True)
def _no_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    """No NVML, whatever is installed here."""
    monkeypatch.setattr(torch.cuda, "clock_rate", None)


def smi(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """A program in place of nvidia-smi."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_clock_and_temperature_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The card is asked for by its UUID, and only asked: no flag that sets anything."""
    smi(tmp_path, monkeypatch, f'echo "$@" > {tmp_path}/asked; echo "1980, 54"')
    assert Sensors("GPU-1234").reading() == SensorReading(sm_clock_mhz=1980.0, temperature_c=54.0)
    asked = (tmp_path / "asked").read_text().split()
    assert asked == [
        "--query-gpu=clocks.sm,temperature.gpu",
        "--format=csv,noheader,nounits",
        "-i",
        "GPU-1234",
    ]


@pytest.mark.parametrize(
    "body", ["exit 1", "echo '[N/A], [N/A]'", "echo", "echo 'No devices were found'"]
)
def test_a_card_that_does_not_answer_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    """Without a working nvidia-smi rows have no clock and no temperature."""
    smi(tmp_path, monkeypatch, body)
    assert Sensors("GPU-1234").reading() == SensorReading()


def test_a_driver_that_refuses_one_field_still_says_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A field that this driver does not know makes nvidia-smi refuse the whole question."""
    body = """case "$1" in *clocks.max.mem*) echo 'Field is not valid'; exit 2;; esac
case "$1" in *driver_version*) echo 580.95;; *) echo 700.00;; esac"""
    smi(tmp_path, monkeypatch, body)
    facts = Sensors("GPU-1234").facts()
    assert facts["driver_version"] == "580.95"
    assert facts["clocks_max_mem"] == ""


def test_what_never_answers_is_not_asked_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run reads the clock hundreds of times: a broken nvidia-smi may not cost each its wait."""
    smi(tmp_path, monkeypatch, f"echo x >> {tmp_path}/asked; exit 1")
    sensors = Sensors("GPU-1234")
    for _ in range(10):
        assert sensors.reading() == SensorReading()
    assert len((tmp_path / "asked").read_text().split()) == 3


def test_nvml_is_asked_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers without starting a program, and that program is there when NVML fails."""
    monkeypatch.setattr(torch.cuda, "clock_rate", lambda: 1755)
    monkeypatch.setattr(torch.cuda, "temperature", lambda: 61)
    smi(tmp_path, monkeypatch, "sleep 0.2; echo '1200, 40'")
    sensors = Sensors("GPU-1234")
    start = time.monotonic()
    assert sensors.reading() == SensorReading(sm_clock_mhz=1755.0, temperature_c=61.0)
    assert time.monotonic() - start < 0.1
    monkeypatch.setattr(torch.cuda, "temperature", None)
    assert sensors.reading() == SensorReading(sm_clock_mhz=1200.0, temperature_c=40.0)
