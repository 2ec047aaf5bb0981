"""Replicas that are there for a part of the time count for that part."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsim.core.request import NEVER
from llmsim.metrics.service import GroupStays, Stay, presence_of, service_report
from llmsim.metrics.usage import Presence, Span, Usage, busiest, busy_shares, mean_busy, worked_more

SECOND = 10**9


def log(rows: list[tuple[int, int, int]]) -> pd.DataFrame:
    """Iterations (replica, start_s, end_s) that hold ten blocks each."""
    replica, start, end = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    ones = np.ones(len(rows), dtype=np.int64)
    return pd.DataFrame(
        {
            "replica": replica,
            "start_ns": start * SECOND,
            "end_ns": end * SECOND,
            "kv_used_blocks": 10 * ones,
            "prefill_tokens": ones,
            "decode_tokens": ones,
            "running": ones,
        }
    )


def shares_of(table: pd.DataFrame, span: Span) -> list[float]:
    """Busy shares of the replicas."""
    worked = worked_more(np.zeros(span.replicas), table["replica"].to_numpy(), span.overlap(table))
    return busy_shares(worked, span)


def used(table: pd.DataFrame, span: Span) -> Usage:
    """What the replicas did, each with a cache of 100 blocks."""
    usage = Usage(span, 100)
    usage.add(table)
    waits = {"arrival_ns": [0, 4 * SECOND], "first_scheduled_ns": [6 * SECOND, 5 * SECOND], "status": "finished"}
    usage.add_requests(pd.DataFrame(waits))
    return usage


def test_shares_and_means_are_of_the_time_that_replicas_were_there():
    """Ten seconds; the first replica is there throughout and works 6 s, the second from 4 s to 6 s and works 1 s."""
    table = log([(0, 0, 6), (1, 4, 5)])
    span = Span(0, 10 * SECOND, 2, Presence.of([(0, None), (4 * SECOND, 6 * SECOND)]))
    shares = shares_of(table, span)
    assert shares == [0.6, 0.5]
    assert mean_busy(shares, span) == pytest.approx(7 / 12)
    stats = used(table, span).batches()
    assert stats["busy_share"] == pytest.approx(7 / 12)
    assert stats["mean_waiting"] == pytest.approx(7 / 12)
    assert used(table, span).kv(16)["mean_used_blocks"] == pytest.approx(70 / 12)


def test_the_busiest_replica_is_one_that_was_there_for_half_of_the_span_if_any_was():
    table = log([(0, 0, 6), (1, 4, 5)])
    late = Presence.of([(0, None), (4 * SECOND, 5 * SECOND)])
    span = Span(0, 10 * SECOND, 2, late)
    assert busiest(shares_of(table, span), span) == pytest.approx(0.6)
    only = Span(0, 10 * SECOND, 2, late.only([1]))
    assert busiest(shares_of(table, only), only) == 1.0
    nobody = Span(0, 10 * SECOND, 2, late.only([]))
    assert busiest([0.0, 0.0], nobody) is None
    assert mean_busy([0.0, 0.0], nobody) is None


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20), st.integers(1, 4)), max_size=20),
    start=st.integers(0, 8),
    length=st.integers(1, 12),
)
def test_replicas_that_are_there_all_the_time_are_what_they_were_without_presence(rows, start, length):
    table = log([(replica, at, at + lasts) for replica, at, lasts in rows])
    bounds = start * SECOND, (start + length) * SECOND, 3
    plain, present = Span(*bounds), Span(*bounds, Presence.always(3))
    ours, theirs = used(table, present).batches(), used(table, plain).batches()
    assert ours == pytest.approx(theirs)
    kv = [used(table, span).kv(16) for span in (plain, present)]
    assert kv[0] == kv[1]


def test_counts_costs_and_drains_of_a_group_by_hand():
    """One from start to end; one added at 2 s, up at 5, removed at 8, gone at 9; one removed before it is up."""
    stays = (
        Stay(replica=0, added_ns=0, up_ns=0),
        Stay(replica=1, added_ns=2 * SECOND, up_ns=5 * SECOND, removed_ns=8 * SECOND, left_ns=9 * SECOND),
        Stay(replica=2, added_ns=3 * SECOND, up_ns=6 * SECOND, removed_ns=4 * SECOND, left_ns=4 * SECOND),
        Stay(replica=3, added_ns=30 * SECOND, up_ns=31 * SECOND),  # after the end
    )
    group = GroupStays(model="m", calibration="gpu/m-tp2", gpus=2, stays=stays)
    report = service_report([group], 10 * SECOND, (0, 0, 0))
    assert report["replica_seconds"] == 10 + 7 + 1
    assert report["gpu_seconds"] == 36
    (one,) = report["groups"]
    rows = [(row["at_s"], row["starting"], row["serving"], row["draining"]) for row in one["timeline"]]
    assert rows == [(0, 0, 1, 0), (2, 1, 1, 0), (3, 2, 1, 0), (4, 1, 1, 0), (5, 0, 2, 0), (8, 0, 1, 1), (9, 0, 1, 0)]
    assert [(drain["replica"], drain["drain_s"]) for drain in one["drains"]] == [(1, 1.0), (2, 0.0)]
    presence = presence_of([group])
    assert presence.within(0, 10 * SECOND).tolist() == [10 * SECOND, 7 * SECOND, SECOND, 0]


def test_a_replica_that_drains_still_at_the_end_costs_until_then():
    stays = (Stay(replica=0, added_ns=0, up_ns=0, removed_ns=4 * SECOND, left_ns=NEVER),)
    group = GroupStays(model="m", calibration="gpu/m", gpus=1, stays=stays)
    report = service_report([group], 6 * SECOND, (3, 2 * SECOND, 1))
    assert report["replica_seconds"] == 6
    assert report["groups"][0]["drains"] == [{"replica": 0, "removed_at_s": 4.0, "drain_s": None}]
    assert report["waited_for_a_replica"] == {"requests": 3, "longest_s": 2.0, "unserved": 1}
