"""A measurement as a result: its run directory, its page, and the files of others."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from io import StringIO

import numpy as np
import pandas as pd
import pytest

from llmsim.client import bench, requests_csv, vllm_record
from llmsim.client.files import token_gaps_s
from llmsim.reports.run_report import write_report
from llmsim.runs.headline import to_json
from llmsim.runs.results import Result
from llmsim.runs.text import comparison
from tests.client.scripted import Scripted, serving, spec

ARRIVALS = {"kind": "constant", "rate": 100.0}


@pytest.fixture(scope="module")
def measured():
    """A run of 12 requests of which three fail, each in its own way, and its spec."""

    async def run():
        bad = {3: "HTTP 503", 5: "cut", 7: "empty"}
        async with serving(Scripted(lambda n, body: bad.get(n, "good"))) as live:
            wanted = spec(live.url, requests=12, arrivals=ARRIVALS, slo=("ttft:5000",))
            return await bench(wanted), wanted

    return asyncio.run(run())


def test_a_run_directory_comes_back_as_it_was(measured, tmp_path):
    result, _ = measured
    saved = result.save(tmp_path, files={"requests.csv": requests_csv(result)})
    names = {path.name for path in saved.iterdir()}
    texts = {"SHA256SUMS", "config.resolved.yaml", "meta.json", "summary.json", "requests.csv"}
    assert names == {*texts, "requests.parquet", "token_times.parquet"}
    again = Result.load(saved)
    assert again.summary == result.summary
    assert again.token_times.equals(result.token_times)
    assert again.requests["ttft_s"].equals(result.requests["ttft_s"])
    assert again.iterations.empty
    assert again.token_ranges.empty
    assert list(again.iterations.columns)[:4] == ["replica", "iteration", "start_ns", "end_ns"]


def test_it_has_a_table_and_a_page_without_what_only_the_server_knows(measured, tmp_path):
    result, _ = measured
    line = next(line for line in comparison([result]).splitlines() if line.startswith("server small") and "und" in line)
    assert line.split()[4:] == ["-", "-", "-", "3", "75.0", "undetermined"]  # KV, preemptions; lost; SLO; load
    page = write_report([result], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "measured on a server" in page


def test_the_csv_has_every_request_and_no_made_up_time(measured):
    result, _ = measured
    lines = pd.read_csv(StringIO(requests_csv(result)), keep_default_na=True)
    wanted = "arrival_s queued_s scheduled_s first_token_s last_token_s input_tokens output_tokens ttft_s tpot_s e2e_s"
    assert set(wanted.split()) <= set(lines.columns)
    assert len(lines) == 12
    failed = lines[lines["status"] == "failed"]
    assert sorted(failed["reason"]) == ["HTTP 503", "broken stream", "no text"]
    assert failed[["last_token_s", "e2e_s"]].isna().all(axis=None)
    done = lines[lines["status"] == "finished"]
    assert np.allclose(done["first_token_s"] - done["arrival_s"], done["ttft_s"])
    assert np.allclose(done["last_token_s"] - done["arrival_s"], done["e2e_s"])
    assert np.allclose((done["e2e_s"] - done["ttft_s"]) / (done["output_tokens"] - 1), done["tpot_s"])


def test_the_record_of_vllm_agrees_with_the_summary(measured):
    result, wanted = measured
    record = json.loads(to_json(vllm_record(result, wanted, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))))
    assert record["date"] == "20260102-030405"
    assert (record["completed"], record["failed"], record["num_prompts"]) == (9, 3, 12)
    assert record["request_rate"] == 100.0
    for key in ("mean_ttft_ms", "median_itl_ms", "p99_tpot_ms", "std_e2el_ms", "request_throughput"):
        assert record[key] == pytest.approx(result.summary[key]), key
    assert [len(gaps) for gaps in record["itls"]].count(4) == 9
    assert sorted(error for error in record["errors"] if error) == [
        "failed: HTTP 503", "failed: broken stream", "failed: no text",
    ]  # fmt: skip
    assert "server_ttfts" not in record


def test_gaps_are_those_of_the_token_times(measured):
    result, _ = measured
    by_id = dict(list(result.token_times.groupby("id")["time_ns"]))
    for id, gaps in zip(result.requests["id"], token_gaps_s(result), strict=True):
        times = by_id.get(id, pd.Series(dtype=np.int64)).to_numpy()
        assert np.allclose(gaps, np.diff(times) / 1e9)


def test_no_key_is_in_any_file(tmp_path):
    from llmsim.cli.bench import without_headers

    async def run():
        async with serving(Scripted()) as live:
            return await bench(spec(live.url), headers={"Authorization": "Bearer sesame"})

    saved = asyncio.run(run()).save(tmp_path)
    assert all(b"sesame" not in path.read_bytes() for path in saved.iterdir())
    assert without_headers(["a", "--header", "K: sesame", "--header=K: sesame", "b"]) == [
        "a", "--header", "...", "--header=...", "b",
    ]  # fmt: skip
