"""A run against a server that answers as a script says: sending, failures, interruptions, and what the server takes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest

from llmsim.client import bench
from llmsim.errors import ConfigError, EndpointError
from tests.client.scripted import Scripted, serving, spec

ROUNDING_NS = 1000
"""The event loop's own clock is in float seconds."""


def measure(server: Scripted | None = None, cancel_at: int | None = None, **options):
    """The result of a run against the server, cancelled soon after so many requests came if asked."""

    async def run():
        async with serving(server or Scripted()) as live:
            work = asyncio.ensure_future(bench(spec(live.url, **options)))
            if cancel_at is not None:
                while sum(body["max_tokens"] != 8 for body in live.seen) < cancel_at and not work.done():
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.2)
                work.cancel()
            return await work

    return asyncio.run(run())


def test_every_request_is_answered_and_the_times_stand_in_order():
    result = measure()
    table = result.requests
    assert list(table["id"]) == list(range(8))
    assert (table["status"] == "finished").all()
    order = ["planned_ns", "arrival_ns", "sent_ns", "first_token_ns", "finish_ns", "ended_ns"]
    for before, after in pairwise(order):
        assert (table[before] <= table[after] + ROUNDING_NS).all(), (before, after)
    assert (table["generated"] == 5).all()
    assert (table["token_events"] == 5).all()
    assert result.summary["failed"] == 0
    assert result.summary["client"]["outputs"]["as_asked"] == 8


@pytest.mark.alone
def test_requests_leave_at_the_workloads_times():
    result = measure(requests=40, arrivals={"kind": "constant", "rate": 100.0})
    table = result.requests
    assert np.array_equal(table["planned_ns"], np.arange(1, 41) * 10_000_000)
    assert np.median(table["sent_ns"] - table["planned_ns"]) < 10e6
    assert result.summary["client"]["send_lateness_ms"]["p50"] >= 0


def test_a_closed_loop_keeps_so_many_in_flight():
    table = measure(requests=12, arrivals={"kind": "closed_loop", "max_concurrency": 3}).requests
    edges = sorted([(t, 1) for t in table["arrival_ns"]] + [(t, -1) for t in table["ended_ns"]])
    in_flight = np.cumsum([step for _, step in edges])
    assert in_flight.max() == 3
    followers = table["planned_ns"] > 0
    assert set(table["planned_ns"][followers]) <= set(table["ended_ns"])


def test_the_summary_agrees_with_the_table_and_the_token_times():
    result = measure()
    times, table, summary = result.token_times, result.requests, result.summary
    gaps = np.concatenate([np.diff(group.to_numpy()) for _, group in times.groupby("id")["time_ns"]])
    assert summary["mean_itl_ms"] == pytest.approx(gaps.mean() / 1e6)
    assert summary["p99_itl_ms"] == pytest.approx(np.percentile(gaps, 99) / 1e6)
    ttft = table["first_token_ns"] - table["arrival_ns"]
    assert summary["median_ttft_ms"] == pytest.approx(np.median(ttft) / 1e6)
    tpot = (table["finish_ns"] - table["first_token_ns"]) / 4
    assert summary["mean_tpot_ms"] == pytest.approx(tpot.mean() / 1e6)
    assert not {"kv", "batches", "preemptions"} & set(summary)
    assert summary["saturation"]["verdict"] == "undetermined"


FAILURES = {
    "HTTP 503": "HTTP 503",
    "cut": "broken stream",
    "unended": "broken stream",
    "garbage": "broken stream",
    "error": "error in the stream",
    "hang": "timeout",
    "empty": "no text",
}


@pytest.mark.parametrize(("kind", "reason"), FAILURES.items())
def test_a_failed_request_is_a_row_with_its_reason(kind, reason):
    server = Scripted(lambda n, body: kind if n % 2 else "good")
    result = measure(server, timeout_s=1 if kind == "hang" else 60)
    table = result.requests
    failed = table[table["status"] == "failed"]
    assert len(table) == 8
    assert len(failed) == 4
    assert set(failed["reject_reason"]) == {reason}
    assert (failed["finish_ns"] == -1).all()
    assert (failed["ended_ns"] > 0).all()
    assert result.summary["client"]["failures"] == {reason: 4}
    assert (result.summary["completed"], result.summary["failed"]) == (4, 4)
    assert any(f"4 of 8 requests failed (4 {reason})" in line for line in result.warnings())


def test_what_a_broken_stream_gave_is_kept():
    table = measure(Scripted(lambda n, body: "cut")).requests
    assert (table["token_events"] == 2).all()
    assert (table["first_token_ns"] > 0).all()
    assert (table["reason_detail"] != "").all()


def test_a_cancelled_run_keeps_what_was_measured():
    server = Scripted(lambda n, body: "hang" if n >= 4 else "good")
    result = measure(server, cancel_at=6, requests=100, arrivals={"kind": "constant", "rate": 20.0})
    summary, table = result.summary, result.requests
    assert summary["client"]["interrupted"]
    assert summary["completed"] == 4
    assert set(table["status"]) == {"finished", "unfinished"}
    assert set(table["reject_reason"][table["status"] == "unfinished"]) == {"interrupted"}
    assert len(table) + summary["requests"]["not_sent"] == 100
    assert summary["requests"]["not_sent"] > 0


def test_short_answers_are_counted_and_said():
    result = measure(Scripted(lambda n, body: "short" if n < 3 else "good"))
    assert result.summary["client"]["outputs"]["shorter"] == 3
    assert any("3 of 8 answers were shorter than asked" in line for line in result.warnings())


@pytest.mark.parametrize(
    ("refused", "note"),
    [("ignore_eos", "refuses ignore_eos"), ("stream_options", "refuses stream_options"), ("ids", "refuses token ids")],
)
def test_what_the_server_refuses_is_left_out_and_said(refused, note):
    server = Scripted(refuses=frozenset({refused}))
    result = measure(server)
    assert result.summary["completed"] == 8
    assert any(note in line for line in result.warnings())
    sent = [body for body in server.seen if body["max_tokens"] != 8]
    assert not any(refused in body for body in sent)
    if refused == "ids":  # words are fitted to the server's counts: 3 tokens each and 7 besides
        assert result.summary["client"]["prompts"]["max_error_tokens"] <= 1


@pytest.mark.parametrize(
    ("refused", "options", "remedy"),
    [("ignore_eos", {"force_length": True}, "--no-force-length"), ("stream_options", {"usage": True}, "--no-usage"),
     ("ids", {"prompt_kind": "ids"}, "--prompt-kind words")],
)  # fmt: skip
def test_what_was_demanded_and_is_refused_is_an_error(refused, options, remedy):
    with pytest.raises(EndpointError, match=remedy):
        measure(Scripted(refuses=frozenset({refused})), **options)


def test_an_unknown_model_is_named_with_those_there_are():
    said = r"does not know the model 'smal'.* Did you mean 'small'.* serves: large, small"
    with pytest.raises(EndpointError, match=said):
        measure(Scripted(models=("small", "large")), model="smal")


def test_a_server_that_does_not_stream_is_an_error():
    with pytest.raises(EndpointError, match="does not stream"):
        measure(Scripted(refuses=frozenset({"stream"})))


def test_nobody_there_is_an_error_after_waiting():
    with pytest.raises(EndpointError, match="cannot be reached"):
        asyncio.run(bench(spec("http://127.0.0.1:9"), wait_s=0.1))


def test_a_server_that_comes_late_is_waited_for():
    async def run():
        async with serving(Scripted()) as first:
            url = first.url
        work = asyncio.ensure_future(bench(spec(url), wait_s=10))
        await asyncio.sleep(0.2)
        late = Scripted()
        with suppress(OSError):
            async with serving(late, port=int(url.rsplit(":", 1)[1])):
                return await work
        pytest.skip("the port was taken by somebody else")

    assert asyncio.run(run()).summary["completed"] == 8


def test_warm_up_requests_are_sent_and_not_measured():
    server = Scripted()
    result = measure(server, warm_up_requests=3)
    assert sum(body["max_tokens"] != 8 for body in server.seen) == 11
    assert len(result.requests) == 8
    prompts = [str(body["prompt"]) for body in server.seen]
    assert len(set(prompts)) == len(prompts)


def test_prompts_are_the_same_only_with_a_prompt_seed():
    def prompts(**options):
        server = Scripted()
        measure(server, **options)
        return sorted(str(body["prompt"]) for body in server.seen)

    assert prompts(prompt_seed=5) == prompts(prompt_seed=5)
    assert prompts() != prompts()


@pytest.mark.parametrize(
    ("options", "said"),
    [({"api": "chats"}, "Did you mean 'chat'"), ({"timeout_s": 0}, "timeout_s"), ({"token_ids": (5, 4)}, "5:4"),
     ({"api": "chat", "prompt_kind": "ids"}, "a chat message is text"), ({"warm_up_requests": -1}, "warm_up")],
)  # fmt: skip
def test_a_spec_that_cannot_be_is_an_error(options, said):
    with pytest.raises(ConfigError, match=said):
        spec("http://127.0.0.1:1", **options)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://a", "http://", "http://a/v1/completions"])
def test_an_endpoint_is_an_address(url):
    with pytest.raises(ConfigError, match="endpoint must be"):
        spec(url)


@pytest.mark.parametrize("url", ["http://a:1", "http://a:1/", "http://a:1/v1", "http://a:1/v1/"])
def test_a_trailing_v1_is_taken_off(url):
    assert spec(url).url == "http://a:1/v1/completions"
