"""Means, Student's intervals and paired differences, against scipy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp, ttest_rel

from llmsim.sweep.points import Plan
from llmsim.sweep.tables import column, mean_table, result_table
from llmsim.sweep.text import short_names, sweep_text
from llmsim.sweep.worker import Outcome
from llmsim.theory.intervals import interval, intervals

PLAN = Plan(
    "t", ["a.x", "s"], [{"a.x": 1, "s": "p"}, {"a.x": 2.5, "s": "q"}], [4, 7, 9], [list("abc"), list("def")], [0, 0]
)
VALUES = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 3.0, "e": 3.5, "f": 6.5}


def outcome(key: str, **changes) -> Outcome:
    figures = {"ttft": VALUES[key], "count": 3, "none": None, "saturation.verdict": "stable", "notes": ""}
    seed = PLAN.seeds["abcdef".index(key) % 3]
    fields = {"figures": figures, "requests": f"w{seed}", "lengths": f"l{seed}"} | changes
    return Outcome(key=key, seed=seed, spec={}, **fields)


OUTCOMES = {key: outcome(key) for key in VALUES}


def test_rows_are_tidy_with_fields_and_figures_as_typed_columns():
    table = result_table(PLAN, OUTCOMES.get)
    assert table["a.x"].tolist() == [1.0] * 3 + [2.5] * 3
    assert table["seed"].tolist() == [4, 7, 9] * 2
    assert table["ttft"].tolist() == list(VALUES.values())
    assert table["count"].dtype == np.int64
    assert table["none"].dtype == np.float64
    assert table["none"].isna().all()
    part = result_table(PLAN, {"a": OUTCOMES["a"]}.get)
    assert len(part) == 1
    assert part["a.x"].dtype == np.float64  # the whole sweep's type, though this row's value is whole


def test_columns_get_the_type_of_their_values():
    assert column([1, 2]).dtype == np.int64
    assert column([1, None]).dtype == np.float64
    assert column([True, False]).dtype == bool
    assert column([1, "x", None]).tolist()[:2] == ["1", "x"]
    assert column([float("inf"), 1]).tolist() == [float("inf"), 1.0]


def test_means_and_paired_differences_are_students():
    means = mean_table(PLAN, result_table(PLAN, OUTCOMES.get))
    rows = means[means["figure"] == "ttft"].set_index("point")
    base, other = np.array([1.0, 2.0, 4.0]), np.array([3.0, 3.5, 6.5])
    for point, values in ((0, base), (1, other)):
        low, high = ttest_1samp(values, 0).confidence_interval(0.95)
        assert rows.loc[point, ["mean", "ci95_low", "ci95_high"]].tolist() == pytest.approx([values.mean(), low, high])
    low, high = ttest_rel(other, base).confidence_interval(0.95)
    found = rows.loc[1, ["difference", "difference_ci95_low", "difference_ci95_high"]].tolist()
    assert found == pytest.approx([(other - base).mean(), low, high])
    assert rows.loc[1, "change_pct"] == pytest.approx((100 * (other / base - 1)).mean())
    assert np.isnan(rows.loc[0, "difference"])
    assert rows["pairs"].tolist() == ["requests", "requests"]


def test_the_shared_intervals_agree_with_each_other():
    rng = np.random.default_rng(1)
    samples = rng.normal(size=(6, 5))
    for row, *found in zip(samples, *intervals(samples), strict=True):
        assert found == pytest.approx(interval(row))
    assert np.isnan(intervals(samples[:, :1]).low).all()


@pytest.mark.parametrize(
    "lost", [{k: v for k, v in OUTCOMES.items() if k != "e"}, OUTCOMES | {"e": outcome("e", figures={}, error="X: y")}]
)
def test_a_point_that_lacks_a_seed_has_no_mean_and_says_so(lost):
    table = result_table(PLAN, lost.get)
    rows = mean_table(PLAN, table).query("figure == 'ttft'").set_index("point")
    assert rows["seeds"].tolist() == [3, 2]
    assert np.isnan(rows.loc[1, ["mean", "difference"]].astype(float)).all()
    assert rows.loc[0, "mean"] == pytest.approx(7 / 3)


def test_pairs_that_do_not_share_their_requests_are_named():
    for changes, kind, words in (
        ({"requests": "other"}, "lengths", "the lengths, not the arrivals"),
        ({"requests": "other", "lengths": "other"}, "seed", "nothing but the seed"),
    ):
        table = result_table(PLAN, (OUTCOMES | {"f": outcome("f", **changes)}).get)
        means = mean_table(PLAN, table)
        assert means.drop_duplicates("point")["pairs"].tolist() == ["requests", kind]
        assert words in " ".join(sweep_text(PLAN, table, means, ["ttft"]).split())


def test_a_shard_without_the_reference_compares_nothing():
    table = result_table(PLAN, {key: OUTCOMES[key] for key in "def"}.get)
    text = " ".join(sweep_text(PLAN, table, mean_table(PLAN, table), ["ttft"]).split())
    assert "1 of 1 points: the reference, or some seeds, is in another shard: compare after merging." in text
    assert "change in %" not in text
    assert "not the same requests" not in text
    with_it = result_table(PLAN, {key: OUTCOMES[key] for key in "abc"}.get)
    assert "another shard" not in sweep_text(PLAN, with_it, mean_table(PLAN, with_it), ["ttft"])


def test_no_run_is_an_empty_table():
    table = result_table(PLAN, {}.get)
    assert len(table) == 0
    assert isinstance(mean_table(PLAN, table), pd.DataFrame)
    assert "0 of them here" in sweep_text(PLAN, table, mean_table(PLAN, table))


def test_columns_are_named_by_the_last_part_that_says_something():
    assert short_names(["workload.arrivals.rate", "scheduler"]) == ["rate", "scheduler"]
    assert short_names(["a.rate", "b.rate"]) == ["a.rate", "b.rate"]
    assert short_names(["workload.arrivals.ramp.1.1"]) == ["workload.arrivals.ramp.1.1"]
