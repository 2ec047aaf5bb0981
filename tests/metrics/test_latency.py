"""Latencies found from token ranges equal those of the tokens listed one by one."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from llmsim.errors import ConfigError
from llmsim.metrics import (
    Timeline,
    e2el_s,
    itl_samples,
    longest_gaps,
    max_itl_s,
    pooled_gaps,
    queue_s,
    request_metrics,
    tpot_s,
    ttft_s,
    weighted_mean,
    weighted_percentiles,
    weighted_std,
)
from llmsim.metrics.timeline import range_maxima
from tests.metrics import reference

SEEDS = range(12)
POINTS = [0, 0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 100]


def expanded_gaps(token_ns: list[list[int]]) -> np.ndarray:
    return np.sort(np.concatenate([np.diff(np.array(ns, dtype=np.int64)) for ns in token_ns]))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_weighted_statistics_equal_numpy_on_the_expanded_sample(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 30))
    values = data.draw(hnp.arrays(np.int64, size, elements=st.integers(0, 10**12)))
    weights = data.draw(hnp.arrays(np.int64, size, elements=st.integers(0, 9)))
    expanded = np.repeat(values, weights)
    points = weighted_percentiles(values, weights, POINTS)
    if not len(expanded):
        assert np.isnan(points).all()
        return
    assert points.tolist() == np.percentile(expanded, POINTS, method="linear").tolist()
    assert weighted_mean(values, weights) == pytest.approx(expanded.mean(), rel=1e-12)
    assert weighted_std(values, weights) == pytest.approx(expanded.std(), rel=1e-9, abs=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_range_maxima_equal_slices(data: st.DataObject) -> None:
    values = data.draw(hnp.arrays(np.int64, st.integers(1, 70), elements=st.integers(-50, 50)))
    pair = st.tuples(st.integers(0, len(values) - 1), st.integers(0, len(values) - 1)).map(sorted)
    pairs = data.draw(st.lists(pair, max_size=20))
    first, last = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    assert range_maxima(values, first, last).tolist() == [values[a : b + 1].max() for a, b in pairs]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("emits", [True, False])
def test_gaps_equal_those_of_the_tokens(seed: int, emits: bool) -> None:
    run = reference.run(seed, emits=emits, skip=0.2, preempt=0.1, max_iterations=30 if seed % 2 else 10**6)
    timeline = Timeline.of(*run.tables)
    assert np.sort(np.repeat(*pooled_gaps(timeline))).tolist() == expanded_gaps(run.token_ns).tolist()
    longest = [int(np.diff(ns).max()) if len(ns) > 1 else -1 for ns in run.token_ns]
    assert longest_gaps(timeline).tolist() == longest
    assert np.nan_to_num(max_itl_s(*run.tables), nan=-1e-9) == pytest.approx(np.array(longest) / 1e9)


@pytest.mark.parametrize("seed", SEEDS)
def test_ranges_on_the_clock_of_the_decode_set_give_the_same_gaps(seed: int) -> None:
    run = reference.run(seed, skip=0.1, max_iterations=10**6 if seed else 0)
    timeline = Timeline.of(*reference.on_set_clock(run, seed).tables)
    plain = Timeline.of(*run.tables)
    gaps = np.sort(np.repeat(*pooled_gaps(timeline)))
    assert gaps.tolist() == np.sort(np.repeat(*pooled_gaps(plain))).tolist()
    assert longest_gaps(timeline).tolist() == longest_gaps(plain).tolist()


@pytest.mark.parametrize("seed", SEEDS)
def test_unordered_ranges_and_chosen_requests(seed: int) -> None:
    run = reference.run(seed, skip=0.3)
    by_time = run.token_ranges.sort_values(["replica", "first_iteration"], kind="stable", ignore_index=True)
    keep = np.arange(len(run.requests)) % 3 == 0
    timeline = Timeline.of(run.requests, run.iterations, by_time).of_requests(keep)
    wanted = [ns for ns, kept in zip(run.token_ns, keep, strict=True) if kept]
    assert np.sort(np.repeat(*pooled_gaps(timeline))).tolist() == expanded_gaps(wanted).tolist()


@pytest.mark.parametrize("definitions", ["vllm", "slai"])
def test_request_latencies_follow_their_formulas(definitions: str) -> None:
    run = reference.run(1, emits=False, max_iterations=30)
    rows = run.requests.to_dict("records")
    ttft, tpot = ttft_s(run.requests, definitions), tpot_s(run.requests)  # type: ignore[arg-type]
    e2el, queue = e2el_s(run.requests), queue_s(run.requests)
    assert {row["status"] for row in rows} == {"finished", "unfinished", "rejected"}
    for i, (row, ns) in enumerate(zip(rows, run.token_ns, strict=True)):
        begin = row["prefill_end_ns"] if definitions == "slai" else (ns[0] if ns else -1)
        wait = (begin - row["arrival_ns"]) / 1e9 if begin >= 0 else np.nan
        assert ttft[i] == pytest.approx(wait, nan_ok=True)
        done = row["status"] == "finished"
        assert e2el[i] == pytest.approx((ns[-1] - row["arrival_ns"]) / 1e9 if done else np.nan, nan_ok=True)
        mean = (ns[-1] - ns[0]) / (len(ns) - 1) / 1e9 if done and len(ns) > 1 else np.nan
        assert tpot[i] == pytest.approx(mean, nan_ok=True)
        assert (queue[i] >= 0) if row["chunks"] else np.isnan(queue[i])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("emits", [True, False])
@pytest.mark.parametrize("given_switch", [True, False])
def test_papers_samples_are_recorded_after_each_batch(seed: int, emits: bool, given_switch: bool) -> None:
    cut = 30 if seed % 2 else 10**6
    run = reference.run(seed, emits=emits, skip=0, preempt=0.15, max_iterations=cut)
    timeline = Timeline.of(*run.tables)
    keep = np.arange(len(run.requests)) % 4 != 0
    switch = emits if given_switch else None
    found = Counter(np.repeat(*itl_samples(run.requests, timeline, keep, "slai", switch)).tolist())
    wanted = Counter(s for samples, kept in zip(run.samples, keep, strict=True) if kept for s in samples)
    assert found.total() == wanted.total()
    # A second restart before any token repeats the older gap once more; the tables can only say 0.
    ranges = run.token_ranges["id"].value_counts().reindex(run.requests["id"], fill_value=0).to_numpy()
    tokenless = np.maximum(run.requests["prompt_completions"].to_numpy() - ranges, 0)
    assert (wanted - found).total() <= (0 if emits else tokenless[keep].sum())


def test_papers_samples_of_a_single_restart_are_exact_though_decodes_are_skipped() -> None:
    checked = 0
    for seed in range(20):
        run = reference.run(seed, emits=False, skip=0.3, preempt=0.03)
        once = (run.requests["prompt_completions"] == 2).to_numpy()
        found = np.sort(np.repeat(*itl_samples(run.requests, Timeline.of(*run.tables), once, "slai")))
        recorded = [s for samples, kept in zip(run.samples, once, strict=True) if kept for s in samples]
        assert found.tolist() == sorted(recorded)
        checked += int(once.sum())
    assert checked > 20


def test_unknown_definitions_and_broken_ranges_are_refused() -> None:
    run = reference.run(0)
    with pytest.raises(ConfigError, match="Did you mean 'vllm'"):
        ttft_s(run.requests, "vlm")  # type: ignore[arg-type]
    wrong = run.token_ranges.copy()
    wrong.loc[0, "last_iteration"] = 10**6
    with pytest.raises(ValueError, match="iteration 1000000 of replica"):
        Timeline.of(run.requests, run.iterations, wrong)
    wrong = run.token_ranges.copy()
    wrong.loc[0, "id"] = 1
    with pytest.raises(ValueError, match="request id"):
        Timeline.of(run.requests, run.iterations, wrong)


def test_request_metrics_has_a_row_per_request_and_leaves_untargeted_requests_unjudged() -> None:
    run = reference.run(2)
    metrics = request_metrics(*run.tables)
    assert metrics["id"].tolist() == run.requests["id"].tolist()
    assert (metrics["slo_met"].isna() == (run.requests["slo_class"] == "none")).all()
