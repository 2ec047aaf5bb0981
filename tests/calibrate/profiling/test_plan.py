"""Plans keep to their limits, cover them, tell the sums apart, and shrink evenly."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmsim.calibrate.fitting.features import SUMS
from llmsim.calibrate.profiling.cases import parse_case
from llmsim.calibrate.profiling.grid import Limits
from llmsim.calibrate.profiling.plan import Plan, default_plan, fit_to_budget, list_plans, load_plan
from llmsim.errors import ConfigError
from tests.effort import examples

GPU = {"max_model_len": 8192, "kv_tokens": 600_000, "max_tokens": 8192, "max_seqs": 512}
CPU = {"max_model_len": 2048, "kv_tokens": 65_536, "max_tokens": 512, "max_seqs": 64}


@settings(max_examples=examples(60, 30))
@given(st.integers(2, 40_000), st.integers(16, 900_000), st.integers(1, 9000), st.integers(1, 700), st.integers(0, 9))
def test_no_case_exceeds_any_limit(max_model_len, kv_tokens, max_tokens, max_seqs, seed):
    plan = default_plan(
        max_model_len=max_model_len,
        kv_tokens=kv_tokens,
        max_tokens=max_tokens,
        max_seqs=max_seqs,
        cases=40,
        seed=seed,
    )
    assert 1 <= len(plan.cases) <= 40
    for case in plan.cases:
        assert case.max_keys <= max_model_len
        assert 16 * case.blocks(16) <= kv_tokens
        assert case.tokens <= max_tokens
        assert len(case.sequences) <= max_seqs
        assert parse_case(str(case)) == case


@pytest.mark.parametrize("limits", [GPU, CPU], ids=["gpu", "cpu"])
@pytest.mark.parametrize("seed", range(3))
def test_the_sums_can_be_told_apart(limits, seed):
    works = [case.work() for case in default_plan(**limits, seed=seed).cases]
    columns = np.array([[1.0, *(getattr(work, name) for name in SUMS)] for work in works])
    assert np.linalg.cond(columns / columns.max(axis=0)) < 40
    ranks = np.argsort(np.argsort(columns[:, 1:], axis=0), axis=0)
    assert np.linalg.cond(np.corrcoef(ranks.T)) < 400


@pytest.mark.parametrize("limits", [GPU, CPU], ids=["gpu", "cpu"])
def test_the_corners_of_the_limits_are_among_the_cases(limits):
    plan = default_plan(**limits)
    works = [case.work() for case in plan.cases]
    assert len(plan.cases) == 160
    assert max(work.decode_tokens for work in works) == limits["max_seqs"]
    assert max(work.tokens for work in works) == limits["max_tokens"]
    assert max(case.max_keys for case in plan.cases) == limits["max_model_len"]
    assert max(work.decode_context for work in works) > 0.9 * min(
        limits["kv_tokens"], limits["max_seqs"] * limits["max_model_len"]
    )
    assert min(work.decode_context for work in works if work.decode_tokens == 1) == 2
    assert min(work.prefill_tokens for work in works if work.prefill_tokens) == 1
    assert max(work.prefill_seqs for work in works) == 64
    assert {"prefill", "decode", "mixed", "corner"} == set(plan.strata())


def test_decodes_of_a_case_have_unequal_contexts_in_many_cases():
    contexts = [{s.keys for s in case.sequences if s.decode} for case in default_plan(**GPU).cases]
    assert sum(len(found) > 2 for found in contexts) > 40
    assert sum(len(found) == 1 for found in contexts) > 20


def test_a_seed_decides_the_plan():
    assert default_plan(**GPU, seed=3) == default_plan(**GPU, seed=3)
    assert default_plan(**GPU, seed=3).cases != default_plan(**GPU, seed=4).cases


def test_the_order_mixes_the_strata():
    strata = [case.stratum for case in default_plan(**GPU).cases]
    assert all(len(set(strata[at : at + 20])) >= 3 for at in range(0, 140, 20))


def test_limits_that_nothing_fits_are_refused():
    for name, value in (("max_model_len", 1), ("kv_tokens", 15), ("max_tokens", 0), ("max_seqs", 0)):
        with pytest.raises(ConfigError, match=f"{name} of a plan"):
            default_plan(**(GPU | {name: value}))
    with pytest.raises(ConfigError, match="at least 20 cases"):
        default_plan(**GPU, cases=19)


def test_a_budget_takes_the_same_share_of_every_stratum_and_no_corner():
    plan = default_plan(**GPU)
    smaller = fit_to_budget(plan, lambda case: 0.01, budget_s=160 * 0.01 * 5 * 0.6, repeats=5)
    assert len(smaller.cases) == 96
    assert len(smaller.dropped) == 64
    assert {case.name for case in smaller.cases} | set(smaller.dropped) == {case.name for case in plan.cases}
    before, after = plan.strata(), smaller.strata()
    assert after["corner"] == before["corner"]
    shares = [after[name] / before[name] for name in ("prefill", "decode", "mixed")]
    assert max(shares) - min(shares) < 0.05
    assert [case for case in plan.cases if case in smaller.cases] == list(smaller.cases)


@cache
def sixty_cases() -> Plan:
    return default_plan(**CPU, cases=60)


@given(st.floats(0.1, 100), st.integers(1, 9))
@settings(max_examples=30)
def test_what_is_left_fits_the_budget(budget, repeats):
    plan = sixty_cases()
    seconds = {case.name: 1e-4 * (1 + case.tokens) for case in plan.cases}
    try:
        smaller = fit_to_budget(plan, seconds, budget, repeats)
    except ConfigError:
        assume(False)  # too little for 20 cases, which the next test is about
    assert repeats * sum(seconds[case.name] for case in smaller.cases) <= budget * (1 + 1e-9)


def test_a_budget_for_fewer_cases_than_a_fit_needs_is_refused():
    plan = default_plan(**CPU)
    assert len(fit_to_budget(plan, lambda case: 0.01, budget_s=20.001 * 0.03, repeats=3).cases) == 20
    with pytest.raises(ConfigError, match=r"are enough for 19 of 160 cases timed 3 times, and a fit needs 20"):
        fit_to_budget(plan, lambda case: 0.01, budget_s=19.999 * 0.03, repeats=3)


def test_a_plan_that_fits_the_budget_is_left_alone():
    plan = default_plan(**CPU)
    assert fit_to_budget(plan, lambda case: 0.01, 1e6, 5) is plan
    with pytest.raises(ConfigError, match="no time is known"):
        fit_to_budget(plan, {}, 1.0, 1)


@pytest.mark.parametrize("name", list_plans())
def test_shipped_plans_load(name):
    plan = load_plan(name)
    assert len(plan.cases) >= 20
    assert len({case.name for case in plan.cases}) == len(plan.cases)
    assert set(plan.strata()) == {"prefill", "decode", "mixed", "corner"}


def test_the_h200_plan_keeps_to_the_positions_of_its_model():
    limits = Limits(**GPU)
    plan = load_plan("llama-8b-h200")
    assert not any(limits.problem(case) for case in plan.cases)
    assert len(plan.cases) == 180


def test_cases_beyond_a_smaller_device_are_dropped_by_name():
    plan = load_plan("tiny-cpu")
    limits = Limits(max_model_len=1024, kv_tokens=20_000, max_tokens=256, max_seqs=32)
    smaller = plan.within(limits)
    assert "corner-full-chunk" in smaller.dropped
    assert not any(limits.problem(case) for case in smaller.cases)
    assert len(smaller.cases) + len(smaller.dropped) == len(plan.cases)
    nothing = Plan((parse_case("a=512"),), "mine")
    with pytest.raises(ConfigError, match=r"mine: no case fits.*512 query tokens of 256"):
        nothing.within(limits)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("case: [a=1]", "Did you mean 'cases'"),
        ("cases: [a=1]\ngrid: {}", "needs 'max_model_len'"),
        ("seed: 1", "it has neither"),
        ("cases: [a=1, a=2]", "two cases are called 'a'"),
        ("cases: [a=5@3]", "fewer keys"),
        ("cases: []", "at least one case"),
        ("grid: {max_model_len: 1, kv_tokens: 99, max_tokens: 1, max_seqs: 1}", "max_model_len of a plan"),
        ("grid: {max_model_len: 9, kv_token: 99, max_tokens: 1, max_seqs: 1}", "Did you mean 'kv_tokens'"),
        (
            "cases: [a=1]\ngrid: {max_model_len: 9, kv_tokens: 99, max_tokens: 1, max_seqs: 1}",
            "either 'cases' or 'grid'; it has both",
        ),
    ],
)
def test_a_wrong_plan_file_is_named_with_the_remedy(tmp_path, text, problem):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_plan(path)
    assert problem in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_an_unknown_plan_is_answered_with_the_nearest_name():
    with pytest.raises(ConfigError, match="Did you mean 'tiny-cpu'"):
        load_plan("tiny-cup")
