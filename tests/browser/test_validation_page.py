"""The figure of validate opens in a browser and shows a point for every row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pytest

from simulator.views.plots.accuracy import predicted_measured
from simulator.views.plots.export import page

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import OpenPage

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("viewport", [(1200, 800), (390, 844)])
def test_every_row_is_a_point_on_the_page(
    tmp_path: Path, open_page: OpenPage, viewport: tuple[int, int]
) -> None:
    """Twenty rows are twenty marks, and the page asks for nothing and logs no error."""
    rows = pd.DataFrame(
        {
            "kind": ["gemm"] * 12 + ["decode_attention"] * 8,
            "gpu_id": "h100-sxm",
            "measured_us": [10.0 * 1.5**step for step in range(20)],
            "predicted_us": [11.0 * 1.5**step for step in range(20)],
        }
    )
    path = tmp_path / "figure.html"
    path.write_text(page(predicted_measured(rows)), encoding="utf-8")
    shown = open_page(path, viewport=viewport)
    shown.wait_for_selector(".scatterlayer .points path")
    assert shown.locator(".scatterlayer .points path").count() == 20
