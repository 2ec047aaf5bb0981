"""What is written is read back the same; Mooncake rows have prompts of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmsim.errors import ConfigError, TraceError
from llmsim.traces.export import to_csv, to_mooncake, workload_table, write_trace
from llmsim.traces.readers import read_trace
from llmsim.traces.workload import (
    ArrivalsSpec,
    ClassSpec,
    DistributionSpec,
    LengthsSpec,
    WorkloadSpec,
    build_workload,
)

ROWS = st.lists(
    st.tuples(st.integers(0, 10**9 - 1), st.integers(1, 5000), st.integers(1, 5000)), min_size=1, max_size=30
)


def table_of(rows: list[tuple[int, int, int]]) -> pd.DataFrame:
    gaps, prompt, output = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    return pd.DataFrame({"arrival_ns": np.cumsum(gaps), "prompt_tokens": prompt, "output_tokens": output})


def with_classes() -> pd.DataFrame:
    spec = WorkloadSpec(
        lengths=LengthsSpec(
            kind="synthetic",
            prompt=DistributionSpec(kind="uniform", low=1, high=900),
            output=DistributionSpec(value=5),
        ),
        arrivals=ArrivalsSpec(kind="poisson", rate=3.0),
        num_requests=40,
        classes=(
            ClassSpec(name="paying", share=0.5, tbt_s=0.1, priority=True),
            ClassSpec(name="free", share=0.5, ttlt_s=600.0, tier=2),
        ),
    )
    return workload_table(build_workload(spec, 1))


@given(ROWS)
def test_mooncake_rows_are_exact_and_share_no_block(rows: list[tuple[int, int, int]]) -> None:
    table = table_of(rows)
    written = [json.loads(line) for line in to_mooncake(table).splitlines()]
    assert len(written) == len(table)
    assert [round(row["timestamp"] * 10**6) for row in written] == table["arrival_ns"].tolist()
    assert [len(row["hash_ids"]) for row in written] == [-(-p // 512) for p in table["prompt_tokens"]]
    ids = [block for row in written for block in row["hash_ids"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.jsonl", "t.jsonl.gz", "t.parquet"])
def test_a_round_trip_changes_nothing(tmp_path: Path, name: str) -> None:
    table = table_of([(1_234_567, 700, 3), (0, 1, 1), (999_999_999, 512, 9)])
    back = read_trace(write_trace(table, tmp_path / name)).requests
    pd.testing.assert_frame_equal(back[list(table.columns)], table)


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_service_levels_survive_a_round_trip(tmp_path: Path, name: str) -> None:
    path = write_trace(with_classes(), tmp_path / name)
    workload = build_workload(WorkloadSpec(trace=str(path), keep_clock=True), 7)
    assert {c.name: (c.tbt_s, c.ttlt_s, c.tier, c.priority) for c in workload.slo_classes} == {
        "paying": (0.1, None, None, True),
        "free": (None, 600.0, 2, False),
    }
    pd.testing.assert_frame_equal(workload_table(workload), with_classes(), check_dtype=False)


def test_parquet_keeps_the_hash_ids(tmp_path: Path) -> None:
    table = table_of([(0, 700, 3), (5, 1, 1)]).assign(hash_ids=pd.Series([[0, 1], [2]], dtype=object))
    back = read_trace(write_trace(table, tmp_path / "t.parquet")).requests
    assert [list(ids) for ids in back["hash_ids"]] == [[0, 1], [2]]
    assert b"hash_ids" not in to_csv(table)


def test_equal_tables_give_equal_files(tmp_path: Path) -> None:
    table = table_of([(0, 700, 3)])
    one, other = write_trace(table, tmp_path / "a.csv.gz"), write_trace(table, tmp_path / "b.csv.gz")
    assert one.read_bytes() == other.read_bytes()


def test_what_cannot_be_written_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    lengths = pd.DataFrame({"prompt_tokens": [1], "output_tokens": [1]})
    with pytest.raises(TraceError, match="need arrival times"):
        write_trace(lengths, tmp_path / "t.jsonl")
    for name in ("t.txt", "t.parquet.gz", "t"):
        with pytest.raises(ConfigError, match=r"must end in \.csv"):
            write_trace(lengths, tmp_path / name)
    (tmp_path / "file").write_text("")
    with pytest.raises(TraceError, match="cannot be written"):
        write_trace(lengths, tmp_path / "file" / "t.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(TraceError, match="cannot be written"):
        write_trace(lengths, tmp_path / "folder.csv")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.csv"]
