"""Clock, temperature and limits of a card, read from the driver and never set.

PyTorch asks NVML, which answers in microseconds, if its Python package (``nvidia-ml-py``) is
installed; otherwise ``nvidia-smi`` is called, which takes up to a second.
"""

import shutil
import subprocess

import torch

from simulator.evidence.measure.rows import SensorReading

_FACTS = ("driver_version", "power.limit", "clocks.max.sm", "clocks.max.mem")
# After this many consecutive failures, nvidia-smi is not called again.
_PATIENCE = 3


class Sensors:
    """One card's clock, temperature and facts.

    Parameters
    ----------
    uuid
        The card's UUID as the driver spells it, ``GPU-...``; None asks for the first card.
    """

    def __init__(self, uuid: str | None) -> None:
        self._uuid = uuid
        self._nvml = True
        self._failures = 0

    def reading(self) -> SensorReading:
        """Return clock and temperature, None if they cannot be read."""
        if self._nvml:
            try:
                return SensorReading(
                    sm_clock_mhz=float(torch.cuda.clock_rate()),
                    temperature_c=float(torch.cuda.temperature()),
                )
            except Exception:  # noqa: BLE001  (not installed, no driver: no common base)
                self._nvml = False
        values = self._ask("clocks.sm", "temperature.gpu") or ["", ""]
        clock, temperature = (float(value) if _is_number(value) else None for value in values)
        return SensorReading(sm_clock_mhz=clock, temperature_c=temperature)

    def facts(self) -> dict[str, str]:
        """Return driver version, power limit and highest clocks, empty if they cannot be read."""
        values = self._ask(*_FACTS)
        if values is None:
            # nvidia-smi refuses all fields if the driver does not know one of them.
            values = [(self._ask(name) or [""])[0] for name in _FACTS]
        return {name.replace(".", "_"): value for name, value in zip(_FACTS, values, strict=True)}

    def _ask(self, *fields: str) -> list[str] | None:
        """Ask nvidia-smi for fields of this card; None if it does not answer."""
        program = shutil.which("nvidia-smi")
        if program is None or self._failures >= _PATIENCE:
            return None
        command = [
            program,
            f"--query-gpu={','.join(fields)}",
            "--format=csv,noheader,nounits",
            *(("-i", self._uuid) if self._uuid else ()),
        ]
        try:
            answer = subprocess.run(  # noqa: S603  (a program of the driver, fixed arguments)
                command, capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            self._failures += 1
            return None
        self._failures = 0
        lines = answer.stdout.strip().splitlines()
        values = [value.strip() for value in lines[0].split(",")] if lines else []
        return values if len(values) == len(fields) else None


def _is_number(text: str) -> bool:
    """Return whether nvidia-smi gave a number, not ``[N/A]``."""
    return text.replace(".", "", 1).isdigit()
