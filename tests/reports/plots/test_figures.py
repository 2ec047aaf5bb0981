"""The figures show every run and every number of their frames, in one colour a run, with units on the axes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llmsim.errors import ConfigError
from llmsim.reports.plots import (
    attainment,
    attainment_figure,
    bars,
    cdf_figure,
    latency_cdfs,
    lines_with_band,
    styles,
    timeline,
    timeline_figure,
)
from llmsim.reports.plots.style import DASHES, PALETTE, log_ticks, plain
from tests.reports.plots.runs import made

SWEEP = pd.DataFrame(
    {
        "rate": [2.0, 1.0, 1.0, 2.0],
        "p99_ms": [40.0, 10.0, 20.0, 80.0],
        "low": [30.0, 9.0, 0.0, np.nan],
        "high": [50.0, 11.0, 25.0, 90.0],
        "policy": ["a", "a", "b <i>", "b <i>"],
    }
)


def test_all_runs_of_a_distribution_keep_their_colour_in_all_panels() -> None:
    runs = [made(0, "one"), made(1, "two")]
    figure = cdf_figure(latency_cdfs(runs), {"ttft": 20.0})
    looks = styles(["one", "two"])
    assert len(figure.data) == 8
    assert all(trace.line.color == looks[trace.name].color for trace in figure.data)
    assert [trace.name for trace in figure.data if trace.showlegend] == ["one", "two"]
    assert [shape.x0 for shape in figure.layout.shapes] == [20.0]
    titles = {axis.title.text for axis in figure.select_xaxes()}
    assert titles <= {"time (ms)", "time (s)"}
    assert {axis.type for axis in figure.select_xaxes()} == {"log"}


def test_a_slow_panel_is_in_seconds_and_its_limit_too() -> None:
    frame = pd.DataFrame({"run": "a", "metric": "e2el", "latency_ms": [5_000.0, 20_000.0], "share": [0.5, 1.0]})
    figure = cdf_figure(frame, {"e2el": 8_000.0, "ttft": 5.0})
    assert figure.layout.xaxis4.title.text == "time (s)"
    assert figure.layout.xaxis.title.text == "time (ms)"
    assert [list(trace.x) for trace in figure.data if len(trace.x)] == [[5.0, 20.0]]
    assert sorted(shape.x0 for shape in figure.layout.shapes) == [5.0, 8.0]


def test_ticks_of_a_logarithmic_axis_are_written_in_full_and_few() -> None:
    ticks = log_ticks(np.array([0.0, 30.0, 2000.0]))["ticktext"]
    assert ticks == ["10", "20", "50", "100", "200", "500", "1000", "2000", "5000"]
    assert len(log_ticks(np.array([1e-3, 1e6]))["tickvals"]) == 10  # type: ignore[arg-type]
    assert log_ticks(np.array([0.0])) == log_ticks(np.empty(0)) == {}


def test_the_buttons_change_all_four_time_axes() -> None:
    log, linear = cdf_figure(latency_cdfs([made()])).layout.updatemenus[0].buttons
    for button, kind in ((log, "log"), (linear, "linear")):
        assert [button.args[0][f"xaxis{i}.type"] for i in ("", 2, 3, 4)] == [kind] * 4


def test_a_timeline_draws_the_mean_and_both_extremes_of_every_quantity() -> None:
    frame = timeline(made(), 20)
    figure = timeline_figure(frame, span_s=(0, 9), tops={"waiting": 50.0})
    assert len(figure.data) == 5 * 3
    drawn = np.concatenate([trace.y[:-1] for trace in figure.data])
    kept = np.concatenate([frame.groupby("quantity", sort=False).get_group(q)[side] for q, side in order()])
    np.testing.assert_array_equal(drawn, kept)
    assert figure.layout.yaxis.range == (0, 52.5)
    assert figure.layout.xaxis5.range == (0, 9)
    assert [axis.title.text for axis in figure.select_yaxes()][-1] == "share of blocks"
    assert timeline_figure(frame, kv_is_share=False).layout.yaxis5.title.text == "blocks"


def order() -> list[tuple[str, str]]:
    quantities = ("waiting", "running", "prefill_tokens", "decode_tokens", "kv")
    return [(quantity, side) for quantity in quantities for side in ("low", "high", "mean")]


def test_attainment_has_a_bar_for_every_run_and_class_that_has_a_limit() -> None:
    frame = attainment([made(0, "one"), made(1, "two")])
    figure = attainment_figure(frame)
    bars_drawn = sum(len(trace.x) for trace in figure.data)
    assert bars_drawn == frame["attainment"].notna().sum() + frame["goodput"].notna().sum()
    assert figure.layout.xaxis.categoryarray[0] == "all requests"


def test_lines_are_sorted_by_x_with_a_band_of_the_same_colour() -> None:
    figure = lines_with_band(SWEEP, "rate", "p99_ms", "policy", "low", "high", y_title="p99 (ms)")
    bands, lines = figure.data[:2], figure.data[2:]
    assert [list(line.x) for line in lines] == [[1, 2], [1, 2]]
    assert [list(line.y) for line in lines] == [[10, 40], [20, 80]]
    assert list(bands[0].y) == [9, 30, 50, 11]
    assert list(bands[1].x) == [1, 1]  # the point without a low is in no band
    assert bands[0].legendgroup == lines[0].legendgroup == "a"
    assert lines[0].line.color == PALETTE[0]
    assert lines[1].name == "b &lt;i&gt;"
    assert figure.layout.yaxis.title.text == "p99 (ms)"
    assert figure.layout.xaxis.title.text == "rate"


def test_a_band_that_reaches_zero_stays_drawable_on_a_logarithmic_axis() -> None:
    figure = lines_with_band(SWEEP, "rate", "p99_ms", "policy", "low", "high", log_y=True, hlines={"SLO": 100.0})
    assert min(figure.data[1].y) == pytest.approx(0.9)
    assert figure.layout.shapes[0].y0 == 100.0
    assert figure.layout.annotations[0].y == pytest.approx(2)


def test_a_target_line_carries_its_name_at_its_value() -> None:
    figure = bars(SWEEP, "rate", "p99_ms", "policy", hlines={"SLO": 60.0})
    assert (figure.layout.shapes[0].y0, figure.layout.annotations[0].y) == (60.0, 60.0)
    assert figure.layout.annotations[0].text == "SLO"


def test_bars_carry_their_numbers_and_whiskers_reach_the_bounds() -> None:
    figure = bars(SWEEP.query("policy == 'a'"), "rate", "p99_ms", None, "low", "high")
    (bar,) = figure.data
    assert list(bar.text) == ["40", "10"]
    assert list(bar.error_y.array) == [10, 1]
    assert list(bar.error_y.arrayminus) == [10, 1]
    assert not figure.layout.showlegend


@pytest.mark.parametrize("draw", [lines_with_band, bars])
def test_a_wrong_column_is_named_with_the_nearest_one(draw) -> None:
    with pytest.raises(ConfigError, match=r"no column 'p99'\. Did you mean 'p99_ms'\?"):
        draw(SWEEP, "rate", "p99", "policy")
    with pytest.raises(ConfigError, match="need"):
        draw(SWEEP, "rate", "p99_ms", "policy", low="low")


def test_styles_differ_for_more_groups_than_there_are_colours_and_names_keep_theirs() -> None:
    names = [str(i) for i in range(len(PALETTE) * len(DASHES))]
    assert len(set(styles(names).values())) == len(names)
    assert styles(["a", "b", "a"]) == styles(["a", "b"])
    assert styles(["a"])["a"].faint(0.5) == "rgba(0,114,178,0.5)"
    assert plain("a<b>&") == "a&lt;b&gt;&amp;"
