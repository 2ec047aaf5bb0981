"""Conditions as people write them, and the judgement of a summary by them."""

from __future__ import annotations

from typing import Any

import pytest

from llmsim.errors import ConfigError
from llmsim.studies.capacity import Condition, Criterion, parse_condition


def summary(**changes: Any) -> dict[str, Any]:
    """A summary with two classes, of which `paying` has both targets and `free` a TBT target."""
    classes = {
        "free": {
            "completed": 90,
            "attainment": 0.99,
            "targets_s": {"ttft": None, "tbt": 0.5, "ttlt": None},
            "median_ttft_ms": 900.0,
            "p99_ttft_ms": 5000.0,
            "p99_itl_ms": 450.0,
        },
        "paying": {
            "completed": 10,
            "attainment": 0.9,
            "targets_s": {"ttft": 1.0, "tbt": 0.1, "ttlt": None},
            "median_ttft_ms": 100.0,
            "p99_ttft_ms": 1500.0,
            "p99_itl_ms": 99.0,
        },
    }
    return {
        "sent": 101,
        "median_ttft_ms": 400.0,
        "p99_itl_ms": 120.0,
        "median_queue_ms": 10.0,
        "p50_tpot_ms": None,
        "requests": {"censored": 1, "measured": 100},
        "slo": {"attainment": 0.981, "classes": classes},
        "saturation": {"verdict": "stable"},
    } | changes


def judge(*lines: str, allow_overload: bool = False, **changes: Any) -> Any:
    return Criterion.parse(lines, allow_overload=allow_overload).judge(summary(**changes))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("median_ttft<=500ms", Condition("median_ttft<=500ms", "median", "ttft", 500.0)),
        (" p99_tbt < 0.5s ", Condition("p99_tbt<0.5s", "p99", "itl", 500.0, strict=True)),
        ("p99.9_e2el<=30", Condition("p99.9_e2el<=30", "p99.9", "e2el", 30.0)),
        ("mean_queue<=2s", Condition("mean_queue<=2s", "mean", "queue", 2000.0)),
        ("class_p99_tbt", Condition("class_p99_tbt", "p99", "itl", None, of_classes=True)),
        ("p99_itl<=class", Condition("p99_itl<=class", "p99", "itl", None, of_classes=True)),
        ("class_median_ttft", Condition("class_median_ttft", "median", "ttft", None, of_classes=True)),
        ("attainment>=0.99", Condition("attainment>=0.99", "", "attainment", 0.99)),
        ("class_attainment>99%", Condition("class_attainment>99%", "", "attainment", 0.99, True, True)),
    ],
)
def test_a_condition_means_what_its_line_says(text, meant):
    assert parse_condition(text) == meant


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("median_tft<=5", "no metric 'tft'. Did you mean 'ttft'"),
        ("p97_ttft<=5", "no statistic 'p97'; write one of mean, median"),
        ("attainmnt>=0.9", "Did you mean 'attainment'"),
        ("p99_ttft>=5", "write p99_ttft<=5"),
        ("p99_ttft", "has no limit"),
        ("p99_ttft<=1h", "positive time"),
        ("p99_ttft<=-5", "positive time"),
        ("class_p99_ttft<=5", "takes no limit"),
        ("class_p90_ttft", "class_median_ttft, class_p99_ttft, class_p99_itl"),
        ("attainment<=0.9", "above a share"),
        ("attainment>=99", "at most 1"),
        ("p99 ttft", "a condition is"),
    ],
)
def test_a_line_that_means_nothing_says_what_would(text, said):
    with pytest.raises(ConfigError) as error:
        parse_condition(text)
    assert said in str(error.value)


def test_all_conditions_must_hold_and_the_one_that_failed_by_most_binds():
    assert judge("median_ttft<=500ms", "p99_tbt<=125ms").passed
    failed = judge("median_ttft<=390ms", "p99_tbt<=100ms")
    assert not failed.passed
    assert failed.binding.words() == "p99_itl 120 > 100 ms"
    assert judge("median_ttft<=500ms", "p99_tbt<=121ms").binding.name == "p99_itl"


def test_the_limit_itself_is_within_a_limit_and_not_below_it():
    assert judge("median_ttft<=400").passed
    assert not judge("median_ttft<400").passed
    assert judge("attainment>=0.981").passed
    assert not judge("attainment>0.981").passed


def test_each_class_is_held_to_its_own_target_and_a_class_without_one_to_none():
    tbt = judge("class_p99_tbt")
    assert tbt.passed
    assert {check.slo_class: check.limit for check in tbt.checks} == {"free": 500.0, "paying": 100.0}
    ttft = judge("class_p99_ttft")
    assert [check.words() for check in ttft.checks] == ["paying p99_ttft 1500 > 1000 ms"]


def test_attainment_is_of_all_requests_or_of_every_class():
    assert judge("attainment>=0.98").passed
    assert not judge().passed  # the default asks for 99 %
    by_class = judge("class_attainment>=0.98")
    assert not by_class.passed
    assert by_class.binding.words() == "paying attainment 0.9 < 0.98"
    assert by_class.binding.use == pytest.approx(5)  # 10 % missed where 2 % may be


def test_an_overloaded_run_never_passes_unless_that_is_allowed():
    overloaded = {"saturation": {"verdict": "overloaded"}}
    refused = judge("median_ttft<=1s", **overloaded)
    assert not refused.passed
    assert refused.binding.words() == "overloaded"
    assert judge("median_ttft<=1s", allow_overload=True, **overloaded).passed


@pytest.mark.parametrize(
    ("evidence", "passes"),
    [
        ({}, True),
        ({"latencies_in_window": 9.0, "completion_deficit": 0.05, "queue_drain_share": 0.0}, True),
        ({"latencies_in_window": 9.0, "completion_deficit": 0.3, "queue_drain_share": 0.0}, False),
        ({"latencies_in_window": 0.9, "completion_deficit": 0.9, "queue_drain_share": 0.0}, True),
        ({"completion_deficit": None, "queue_drain_share": 0.2}, False),
    ],
)
def test_a_run_too_short_for_a_verdict_passes_unless_its_best_estimate_is_an_overload(evidence, passes):
    short = {"saturation": {"verdict": "undetermined", "evidence": evidence}}
    judged = judge("median_ttft<=1s", **short)
    assert judged.passed is passes
    if not passes:
        assert judged.binding.words() == "probably overloaded"
    assert judge("median_ttft<=1s", allow_overload=True, **short).passed


def test_unfinished_requests_are_counted_beside_the_percentiles():
    judged = judge("median_ttft<=1s")
    assert (judged.censored, judged.sent) == (1, 101)


def test_a_latency_nobody_has_fails_unless_the_finished_requests_cannot_have_it():
    assert judge("p50_tpot<=5").passed  # one token each: no gaps to limit
    nobody = judge("median_ttft<=1s", median_ttft_ms=None, requests={"censored": 101, "measured": 0})
    assert not nobody.passed
    assert "no request finished" in nobody.binding.words()


@pytest.mark.parametrize("line", ["attainment>=0.9", "class_p99_tbt"])
def test_a_condition_on_targets_that_nobody_has_says_how_to_give_some(line):
    with pytest.raises(ConfigError, match=r"workload\.classes"):
        judge(line, slo=None)
