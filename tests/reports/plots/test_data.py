"""The frames behind the figures hold the numbers of the summary, and need no plotly."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from llmsim.metrics.usage import Span
from llmsim.reports.plots.data import COUNTS, EVERYONE, attainment, latency_cdfs, timeline
from llmsim.runs.labels import run_names
from llmsim.units import SECOND
from tests.reports.plots.runs import made


def test_the_data_functions_do_not_load_plotly() -> None:
    code = (
        "import sys, llmsim.reports.plots.data; from llmsim.reports.plots import timeline; "
        "print('plotly' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_every_public_name_of_the_package_resolves() -> None:
    import llmsim.reports.plots

    assert all(getattr(llmsim.reports.plots, name) is not None for name in llmsim.reports.plots.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        llmsim.reports.plots.nonsense  # noqa: B018


def test_runs_of_the_same_label_get_different_names() -> None:
    assert run_names([made(0, "a"), made(1, "b")]) == ["a", "b"]
    assert run_names([made(0, "a"), made(1, "a")]) == ["seed 0", "seed 1"]
    assert run_names([made(0, "a"), made(0, "a")]) == ["[1] a", "[2] a"]


@pytest.mark.parametrize("definitions", ["vllm", "slai"])
@pytest.mark.parametrize("warmup_s", [0, 0.05])
def test_a_distribution_reaches_each_percentile_where_the_summary_says(definitions: str, warmup_s: float) -> None:
    run = made(2, definitions=definitions, warmup_s=warmup_s)
    frame = latency_cdfs([run])
    assert set(frame["metric"]) == {"ttft", "tpot", "itl", "e2el"}
    for metric, part in frame.groupby("metric"):
        at, share = part["latency_ms"].to_numpy(), part["share"].to_numpy()
        assert share[-1] == 1
        mean = float((at * np.diff(share, prepend=0)).sum())
        assert mean == pytest.approx(run.summary[f"mean_{metric}_ms"])
        for p in (10, 50, 90, 99):
            bound = run.summary[f"p{p}_{metric}_ms"]  # interpolated between two neighbours of the sample
            after = np.searchsorted(share, p / 100 - 1e-12)
            assert at[max(after - 1, 0)] <= bound * (1 + 1e-9)
            assert bound <= at[min(after + 1, len(at) - 1)] * (1 + 1e-9)


@pytest.mark.parametrize("bins", [7, 500])
def test_the_timeline_has_the_means_of_the_summary_and_no_more_bins_than_asked(bins: int) -> None:
    run = made(1)
    frame = timeline(run, bins)
    assert frame.groupby("quantity").size().max() <= bins
    assert set(frame["quantity"]) == {*COUNTS, "kv"}
    assert np.all((frame["low"] <= frame["mean"]) & (frame["mean"] <= frame["high"]))
    table = run.iterations
    lasted = (table["end_ns"] - table["start_ns"]) / SECOND
    for name in COUNTS:
        part = frame[frame["quantity"] == name]
        area = (part["mean"] * (part["end_s"] - part["start_s"])).sum()
        assert area == pytest.approx((table[name] * lasted).sum())
    kv = frame[frame["quantity"] == "kv"]
    span = Span(int(table["start_ns"].min()), int(table["end_ns"].max()), 2)
    share = table["kv_used_blocks"] / table["replica"].map({0: 20, 1: 40})
    expected = (share * lasted).sum() / (2 * span.length_ns / SECOND)
    assert (kv["mean"] * (kv["end_s"] - kv["start_s"])).sum() / (span.length_ns / SECOND) == pytest.approx(expected)
    assert kv["high"].max() == pytest.approx(share.max())


def test_without_a_number_of_blocks_kv_is_in_blocks() -> None:
    run = made(1, kv={})
    kv = timeline(run).query("quantity == 'kv'")
    assert kv["high"].max() == run.iterations["kv_used_blocks"].max()


def test_a_run_in_which_nothing_ran_has_an_empty_timeline_and_no_curve() -> None:
    run = made()
    empty = type(run)(
        name="none",
        requests=run.requests.iloc[:0],
        iterations=run.iterations.iloc[:0],
        token_ranges=run.token_ranges.iloc[:0],
        summary=run.summary,
    )
    assert timeline(empty).empty
    assert latency_cdfs([empty]).empty


def test_attainment_names_everyone_first_then_each_class_with_its_limits() -> None:
    run = made()
    frame = attainment([run, made(1, "other", slo=None)])
    assert set(frame["run"]) == {"sarathi"}
    assert frame["slo_class"].tolist() == [EVERYONE, "free", "none", "paying"]
    assert frame["limits"].tolist() == ["TTFT 20 ms", "TTLT 0.1 s", "", "TTFT 0.05 s, TBT 0.004 s"]
    assert frame["met"].iloc[0] == frame["met"].iloc[1:].sum() == run.summary["slo"]["met"]
    assert frame["goodput"].iloc[0] == run.summary["request_goodput"]
    assert attainment([made(slo=None)]).empty
