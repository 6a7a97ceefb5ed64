"""The record next to the rows: the device and the software of the measurement."""

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from simulator._version import __version__
from simulator.errors import MeasurementError
from simulator.evidence.measure.device import Device
from simulator.evidence.measure.store import read_environment, write_environment

SCHEMA_VERSION = 1


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Environment:
    """The environment record of a folder, one entry for each run.

    Raises
    ------
    MeasurementError
        If the folder's rows come from another device.
    """

    def __init__(self, folder: Path, device: Device, settings: Mapping[str, Any]) -> None:
        facts = device.facts()
        record = read_environment(folder)
        if record is None:
            record = {"schema_version": SCHEMA_VERSION, **facts, "runs": []}
        elif record.get("name") != facts["name"]:
            raise MeasurementError(
                f"{folder} has rows of {record.get('name')}, this is {facts['name']}; "
                "choose another folder with --output"
            )
        self._folder, self._device, self._record = folder, device, record
        self._run: dict[str, Any] = {
            "started_at": now(),
            "ended_at": None,
            "bifurcate": __version__,
            "torch": device.card.version,
            "python": platform.python_version(),
            "system": platform.platform(),
            **{name: facts[name] for name in ("driver_version", "cuda") if name in facts},
            "settings": dict(settings),
            "at": None,
            "before": asdict(device.reading()),
            "after": None,
            "rows": 0,
        }
        runs = record.setdefault("runs", [])
        # A run that did not record its end was killed, or crashed in the cell it was measuring.
        dead = [entry for entry in runs if not entry.get("ended_at")]
        self._deaths = Counter(key for entry in dead for key in entry.get("at") or ())
        runs.append(self._run)
        write_environment(folder, record)

    def begin(self, cells: Sequence[str]) -> None:
        """Record what is measured next, in case this process dies in it."""
        self._run["at"] = list(cells)
        write_environment(self._folder, self._record)

    def deaths(self, cell: str) -> int:
        """Return how many earlier runs died while measuring a cell."""
        return self._deaths[cell]

    def forgive(self) -> None:
        """Forget the deaths of earlier runs, so that their cells are tried again normally."""
        for entry in self._record["runs"][:-1]:
            entry["at"] = None
        self._deaths.clear()

    def close(self, *, rows: int) -> None:
        """Record the end of the run."""
        self._run |= {
            "ended_at": now(),
            "at": None,
            "after": asdict(self._device.reading()),
            "rows": rows,
        }
        write_environment(self._folder, self._record)
