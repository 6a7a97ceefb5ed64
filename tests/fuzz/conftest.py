"""The clock of each test, of whose time all its examples take a part."""

import time

import pytest
from fuzzing import Clock


@pytest.fixture(autouse=True)
def _begin() -> None:
    """Start the time of a test."""
    Clock.start = time.monotonic()
