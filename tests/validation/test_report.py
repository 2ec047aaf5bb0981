"""The page of a validation."""

from __future__ import annotations

import pytest

from llmsim.reports.plots.validation import iteration_points, request_points, speed_over_time
from llmsim.reports.validation_report import write_validation_report
from tests.validation.worlds import comparison


@pytest.fixture(scope="module")
def found():
    return comparison(bias=1.03, drift=1.02)


def test_the_page_holds_every_part_and_needs_no_network(found, tmp_path):
    page = write_validation_report([found], tmp_path / "page.html").read_text()
    for words in (
        "How far off is the simulation?", "as found during the run", "made identical batches", "Request by request",
        "causes of the errors", "Iteration by iteration", "The device&#39;s speed", "Queues and KV over time", "a note",
        "where this comes from",
    ):  # fmt: skip
        assert words in page or words.replace("&#39;", "'") in page, words
    assert page.count("plotly.js v") == 1
    assert "<script src" not in page
    again = write_validation_report([found], tmp_path / "again.html").read_text()
    assert again == page


def test_what_is_drawn_is_what_was_measured(found):
    points = request_points(found.live.result, found.simulated)
    row = points[(points["metric"] == "e2el") & (points["id"] == 7)].iloc[0]
    assert row["live_ms"] == pytest.approx(1e3 * found.live.result.requests.set_index("id").loc[7, "e2el_s"])
    table = found.iterations.table
    assert len(iteration_points(table, most=50)) <= 100
    speed = speed_over_time(table)
    assert speed["ratio"].to_numpy() == pytest.approx(1.03, abs=1e-5)
    assert speed["at_s"].is_monotonic_increasing


def test_a_replay_that_parted_is_shown(found, tmp_path):
    from dataclasses import replace

    page = write_validation_report([replace(found, replay="parted at <3>")], tmp_path / "page.html").read_text()
    assert "parted at &lt;3&gt;" in page
