"""Predicted against measured: the points, the band and what the title says of them."""

import pandas as pd

from simulator.views.plots.accuracy import MOST_POINTS, predicted_measured


def rows(measured: list[float], predicted: list[float], kind: str = "gemm") -> pd.DataFrame:
    """Return rows as ``validate`` makes them."""
    return pd.DataFrame(
        {
            "kind": kind,
            "gpu_id": "h100-sxm",
            "framework": "torch",
            "sizes": "m 1",
            "measured_us": measured,
            "predicted_us": predicted,
        }
    )


def test_every_row_is_a_point_at_its_two_times() -> None:
    """Measured lies along x and predicted along y, of each kind in a trace of its own."""
    frame = pd.concat([rows([10, 20], [11, 22]), rows([500], [400], kind="decode_step")])
    figure = predicted_measured(frame)
    points = {
        trace.name.partition(":")[0]: sorted(zip(trace.x, trace.y, strict=True))
        for trace in figure.data
        if trace.mode == "markers"
    }
    assert points == {"gemm": [(10, 11), (20, 22)], "decode step": [(500, 400)]}


def test_the_title_tells_the_median_and_the_ninetieth_percentile() -> None:
    """Eleven rows 0, 1, ... 10 % off: the median is 5 %, nine in ten are within 9 %."""
    frame = rows([100.0] * 11, [100.0 + off for off in range(11)])
    finding = predicted_measured(frame).layout.meta["finding"]
    assert "11 predictions lie within 5.0%" in finding
    assert finding.endswith("nine in ten within 9%")


def test_rows_without_a_time_are_left_out() -> None:
    """A row that ran out of memory has no time, and is no point."""
    figure = predicted_measured(rows([10, float("nan")], [11, 12]))
    assert "1 prediction lie" in figure.layout.meta["finding"]


def test_no_rows_make_a_figure_that_says_so() -> None:
    """Without a row there is no point, and no error."""
    assert "No row" in predicted_measured(rows([], [])).layout.meta["finding"]


def test_small_kinds_are_drawn_whole_among_many_rows() -> None:
    """Thinning out a large kind takes no point of a small one, and is admitted in the footer."""
    many = rows([10.0] * 3 * MOST_POINTS, [11.0] * 3 * MOST_POINTS)
    frame = pd.concat([many, rows([5.0] * 7, [6.0] * 7, kind="decode_step")])
    figure = predicted_measured(frame)
    drawn = {t.name.partition(":")[0]: len(t.x) for t in figure.data if t.mode == "markers"}
    assert drawn["decode step"] == 7
    assert drawn["gemm"] <= MOST_POINTS
    assert "not every row is drawn" in figure.layout.annotations[-1].text


def test_the_bands_are_ten_and_twenty_percent_to_each_side() -> None:
    """At every x the bands run from 0.8 to 1.2 and from 0.9 to 1.1 times x."""
    outer, inner = predicted_measured(rows([10, 1000], [10, 1000])).data[:2]
    for band, ends in ((outer, [0.8, 0.8, 1.2, 1.2]), (inner, [0.9, 0.9, 1.1, 1.1])):
        assert band.fill == "toself"
        ratios = sorted(round(y / x, 6) for x, y in zip(band.x, band.y, strict=True))
        assert ratios == ends


def test_a_point_names_its_row() -> None:
    """GPU, library and kernel, sizes, file and line, and how far off; texts cannot be markup."""
    frame = rows([10.0], [12.5]).assign(kernel="a<b", file="rows.csv", line=17)
    (points,) = (trace for trace in predicted_measured(frame).data if trace.mode == "markers")
    (said,) = points.hovertext
    assert said.startswith("h100-sxm torch a&lt;b<br>m 1<br>rows.csv 17<br>+25.0%<br>")


def test_the_rows_farthest_off_are_always_drawn() -> None:
    """Among more rows than are drawn, those that are far off stay."""
    count = 5 * MOST_POINTS
    predicted = [10.5] * count
    predicted[1], predicted[-2] = 100.0, 1.0
    figure = predicted_measured(rows([10.0] * count, predicted))
    (points,) = (trace for trace in figure.data if trace.mode == "markers")
    assert len(points.y) <= MOST_POINTS
    assert {100.0, 1.0} <= set(points.y)


def test_the_footer_says_what_the_predictions_rest_on() -> None:
    """The origin of each GPU's constants, a hash of the profiles and our version are there."""
    gpus = pd.DataFrame(
        {"gpu": ["h100-sxm", "l4"], "constants": ["fitted", "carried"], "hash": ["aa", "bb"]}
    )
    footer = predicted_measured(rows([10], [11]), gpus=gpus).layout.annotations[-1].text
    words = " ".join(footer.replace("<br>", " ").split())
    assert "Constants fitted for h100-sxm; carried over from those for the others." in words
    assert "Profiles of 2 GPUs, hash of all " in words
    assert "bifurcate " in words
    alone = predicted_measured(rows([10], [11]), gpus=gpus[:1]).layout.annotations[-1].text
    assert "Profile h100-sxm, hash aa." in alone


def test_bands_are_told_apart_in_the_key() -> None:
    """Within 10 % and within 20 % are not drawn in one grey."""
    bands = [item for item in predicted_measured(rows([10], [11])).data if item.fill == "toself"]
    assert len({band.fillcolor for band in bands}) == len(bands) == 2
