"""A run's workload as Mooncake lines: read back it is the same, in any order of ids."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsim.errors import ConfigError
from llmsim.exports import export_runs, mooncake_bytes, workload_of
from llmsim.traces.readers import read_trace
from llmsim.units import MILLISECOND
from tests.exports.runs import made, small, with_one_rejected

LENGTHS = ["prompt_tokens", "output_tokens"]
ROWS = st.lists(st.tuples(st.integers(0, 2**45), st.integers(1, 5000), st.integers(1, 5000)), min_size=1, max_size=20)


@settings(deadline=None)  # each example starts the engine that reads traces
@given(ROWS)
def test_arrivals_come_back_to_the_millisecond_and_lengths_exactly(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int]]
) -> None:
    arrival, prompt, output = (list(column) for column in zip(*rows, strict=True))
    requests = pd.DataFrame(
        {"id": range(len(rows)), "arrival_ns": arrival, "prompt_tokens": prompt, "output_tokens": output}
    )
    path = tmp_path_factory.mktemp("mooncake") / "trace.jsonl"
    path.write_bytes(mooncake_bytes(requests))
    back, sent = read_trace(path).requests, workload_of(requests)
    assert (back["arrival_ns"] // MILLISECOND).tolist() == (sent["arrival_ns"] // MILLISECOND).tolist()
    pd.testing.assert_frame_equal(back[LENGTHS], sent[LENGTHS], check_dtype=False)
    assert np.abs(back["arrival_ns"] - sent["arrival_ns"]).max() == 0


def test_equal_arrivals_keep_the_order_of_ids_and_every_prompt_has_blocks_of_its_own() -> None:
    requests = pd.DataFrame(
        {"id": [0, 1, 2], "arrival_ns": [7, 7, 2], "prompt_tokens": [513, 512, 1], "output_tokens": [1, 2, 3]}
    )
    lines = [json.loads(line) for line in mooncake_bytes(requests).splitlines()]
    assert [line["output_length"] for line in lines] == [3, 1, 2]
    assert [line["hash_ids"] for line in lines] == [[0], [1, 2], [3]]


def test_a_run_of_the_export_serves_the_same_requests(tmp_path: Path) -> None:
    result = small()
    written = export_runs([result.save(tmp_path)], "mooncake", tmp_path / "again.jsonl")
    again = made(workload={"trace": str(written.path), "keep_clock": True})
    columns = ["arrival_ns", *LENGTHS, "first_token_ns", "finish_ns"]
    pd.testing.assert_frame_equal(again.requests[columns], result.requests[columns])


def test_rejected_requests_are_part_of_the_workload() -> None:
    assert len(workload_of(with_one_rejected().requests)) == 60


FIXED = {
    "lengths": {
        "kind": "synthetic",
        "prompt": {"kind": "fixed", "value": 900},
        "output": {"kind": "fixed", "value": 9},
    },
    "arrivals": {"kind": "poisson", "rate": 6.0},
    "num_requests": 5,
}


def test_a_closed_loop_and_requests_never_sent_are_named(tmp_path: Path) -> None:
    workload = {**FIXED, "arrivals": {"kind": "closed_loop", "max_concurrency": 2}}
    loop = made(workload=workload)
    (note,) = export_runs([loop.save(tmp_path)], "mooncake").notes
    assert "closed loop" in note
    cut = made(horizon_s=0.5, workload=workload)
    notes = export_runs([cut.save(tmp_path)], "mooncake").notes
    assert any("never sent" in note for note in notes)


def test_a_run_without_requests_has_no_workload() -> None:
    with pytest.raises(ConfigError, match="sent no request"):
        mooncake_bytes(small().requests.iloc[:0])
