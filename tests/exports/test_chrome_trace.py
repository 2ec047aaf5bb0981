"""A run as a Chrome trace: the log's iterations, counters and requests, in the format's own terms."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from llmsim.errors import ConfigError
from llmsim.exports import Window, chrome_trace
from llmsim.exports.phases import phases
from llmsim.runs.results import Result
from tests.exports.runs import made, measured, small, with_one_rejected
from tests.exports.trace_format import Event, read

POLICIES = ["vllm_v0", "vllm_v1", "sarathi", "slai", "niyama", "hold_n"]


def events(result: Result, folder: Path, window: Window | None = None) -> dict[str, list[Event]]:
    path = folder / "trace.json"
    path.write_bytes(chrome_trace(result) if window is None else chrome_trace(result, window))
    return read(path)


@pytest.mark.parametrize("scheduler", POLICIES)
def test_every_iteration_is_a_slice_of_its_replica(scheduler: str, tmp_path: Path) -> None:
    result = small(scheduler)
    slices = events(result, tmp_path)["X"]
    log = result.iterations
    assert len(slices) == len(log)
    assert [event["pid"] // 2 - 1 for event in slices] == log["replica"].tolist()
    assert np.array([event["ts"] for event in slices]) * 1000 == pytest.approx(log["start_ns"].to_numpy(), abs=0.01)
    assert [event["args"]["kv_used_blocks"] for event in slices] == log["kv_used_blocks"].tolist()
    kinds = np.where(log["prefill_tokens"] == 0, "decode", np.where(log["decode_tokens"] > 0, "mixed", "prefill"))
    assert [event["name"] for event in slices] == kinds.tolist()


@pytest.mark.parametrize("scheduler", POLICIES)
def test_counters_are_the_log_at_every_start_and_zero_when_all_is_done(scheduler: str, tmp_path: Path) -> None:
    result = small(scheduler)
    found: dict[tuple[int, str], list[tuple[float, int]]] = defaultdict(list)
    for event in events(result, tmp_path)["C"]:
        (value,) = event["args"].values()
        found[event["pid"] // 2 - 1, event["name"]].append((event["ts"], value))
    for replica, log in result.iterations.groupby("replica"):
        for column, name in (("waiting", "queue"), ("running", "running"), ("kv_used_blocks", "KV")):
            times, values = np.array(found[replica, name]).T
            assert (np.diff(times) >= 0).all()
            at = np.searchsorted(times, log["start_ns"] / 1000 + 1e-4, side="right") - 1
            assert values[at].astype(int).tolist() == log[column].tolist()
            assert values[-1] == 0


def test_the_queue_counts_requests_that_arrive_while_an_idle_replica_waits_for_company(tmp_path: Path) -> None:
    result = made("dynamic,batch_size=4,max_time_wait_s=30", cluster={"replicas": 1}, engine={"num_blocks": 4000})
    first = result.requests.sort_values("first_scheduled_ns").head(4)
    assert first["first_scheduled_ns"].nunique() == 1
    counter = [(e["ts"], e["args"]["requests"]) for e in events(result, tmp_path)["C"] if e["name"] == "queue"]
    wanted = [(0, 0)]
    wanted += [(at / 1000, number) for number, at in enumerate(first["arrival_ns"].tolist()[:-1], start=1)]
    assert counter[: len(wanted) + 1] == [*wanted, (int(result.iterations["start_ns"].iloc[0]) / 1000, 0)]


@pytest.mark.parametrize("scheduler", POLICIES)
def test_phases_fill_the_life_of_a_request_without_gap(scheduler: str) -> None:
    result = small(scheduler)
    for row, spans in zip(result.requests.to_dict("records"), phases(result), strict=True):
        assert spans[0].start_ns == row["arrival_ns"]
        assert spans[-1].end_ns == row["finish_ns"]
        assert all(a.end_ns == b.start_ns for a, b in pairwise(spans))
        names = [span.name for span in spans]
        assert names.count("preempted") <= row["preemptions"]
        if row["first_scheduled_ns"] > row["arrival_ns"]:
            assert (spans[0].name, spans[0].end_ns) == ("waiting", row["first_scheduled_ns"])


@pytest.mark.parametrize("scheduler", ["vllm_v0", "vllm_v1", "sarathi"])
def test_a_request_that_lost_its_kv_between_tokens_was_preempted_there(scheduler: str) -> None:
    result = small(scheduler)
    found = Counter(span.name for spans in phases(result) for span in spans)
    completions = result.requests["prompt_completions"]
    assert found["preempted"] == (completions - 1).sum() > 0
    for row, spans in zip(result.requests.to_dict("records"), phases(result), strict=True):
        again = [span for span in spans if span.name == "preempted"]
        assert not again or again[-1].end_ns == row["prefill_end_ns"]


def test_spans_of_requests_are_named_alike_and_carry_their_numbers(tmp_path: Path) -> None:
    result = small()
    begun = [event for event in events(result, tmp_path)["b"] if event["name"] == "request"]
    assert [event["args"]["id"] for event in begun] == result.requests["id"].tolist()
    assert [event["pid"] // 2 - 1 for event in begun] == result.requests["replica"].tolist()
    assert len({event["id2"]["local"] for event in begun}) == 60
    first, row = begun[0]["args"], result.requests.iloc[0]
    assert first["ttft_ms"] == pytest.approx(row["ttft_s"] * 1000)
    assert (first["prompt_tokens"], first["status"]) == (row["prompt_tokens"], "finished")


def test_a_rejected_request_is_an_instant_and_an_unfinished_one_lasts_to_the_end(tmp_path: Path) -> None:
    (instant,) = events(with_one_rejected(), tmp_path)["n"]
    assert (instant["name"], instant["args"]["id"]) == ("rejected", 5)
    cut = made(horizon_s=5.0)
    ends = {e["id2"]["local"]: e["ts"] for e in events(cut, tmp_path)["e"] if e["name"] == "request"}
    unfinished = cut.requests[cut.requests["status"] == "unfinished"]["id"]
    assert len(unfinished)
    assert {ends[hex(each)] for each in unfinished} == {cut.iterations["end_ns"].max() / 1000}


def test_batchers_hold_finished_answers_until_the_batch_is_done() -> None:
    result = made("dynamic", engine={"num_blocks": 4000})
    spans = phases(result)
    assert any(span.name == "held" for each in spans for span in each)
    assert [each[-1].end_ns for each in spans] == result.requests["finish_ns"].tolist()


def test_of_a_measured_server_only_requests_are_known(tmp_path: Path) -> None:
    found = events(measured(), tmp_path)
    assert not found["X"]
    assert not found["C"]
    assert {event["name"] for event in found["b"]} == {"request", "first token", "decode"}


def test_a_window_keeps_what_overlaps_it_and_cuts_requests_at_its_edges(tmp_path: Path) -> None:
    result, window = small(), Window(4, 6)
    cut, log, sent = events(result, tmp_path, window), result.iterations, result.requests
    inside = (log["start_ns"] < 6 * 10**9) & (log["end_ns"] > 4 * 10**9)
    assert len(cut["X"]) == inside.sum() < len(log)
    there = (sent["arrival_ns"] < 6 * 10**9) & (sent["finish_ns"] > 4 * 10**9)
    begun = [event for event in cut["b"] if event["name"] == "request"]
    assert [event["args"]["id"] for event in begun] == sent["id"][there].tolist()
    assert min(event["ts"] for event in cut["b"]) == 4e6
    assert max(event["ts"] for event in cut["e"]) == 6e6
    assert begun[0]["args"]["e2el_ms"] == pytest.approx(sent["e2el_s"][there].iloc[0] * 1000)
    assert {min(e["ts"] for e in cut["C"] if e["name"] == name) for name in ("queue", "running", "KV")} == {4e6}
    assert max(event["ts"] for event in cut["C"]) < 6e6
    assert len(events(result, tmp_path, Window(4))["X"]) > len(cut["X"])


def test_a_window_without_anything_is_an_error() -> None:
    with pytest.raises(ConfigError, match="nothing of the run lies between"):
        chrome_trace(small(), Window(10_000))
    with pytest.raises(ConfigError, match=r"--to-s must be above --from-s, 5, but got 5"):
        Window(5, 5)
    with pytest.raises(ConfigError, match=r"--from-s must be at least 0 seconds but got -1"):
        Window(-1)


def test_the_same_run_gives_the_same_bytes() -> None:
    assert chrome_trace(small()) == chrome_trace(made())
