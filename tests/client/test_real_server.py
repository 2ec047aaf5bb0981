"""The whole command against a real server in a process of its own. Run by `make test-live`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.client.real_server import ROOT, make_model, need_packages, serving
from tests.command import heed_signals

pytestmark = pytest.mark.live

WAIT_S = 60
WORKLOAD = ["--trace", "azure-conv", "--seed", "3", "--on-long", "clip"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    need_packages()
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def model(folder):
    return make_model(folder)


@pytest.fixture(scope="module")
def server(folder, model):
    with serving(folder, model) as running:
        yield running


def command(server, *options: str) -> list[str]:
    model = () if "--model" in options else ("--model", server.model)
    where = ["--endpoint", server.url, *model, "--wait", str(WAIT_S)]
    return [sys.executable, "-m", "llmsim", "bench", *where, *WORKLOAD, *options]


def llmsim_bench(server, *options: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(command(server, *options), cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == code, f"{ran.stdout}\n{ran.stderr}\n{server.tail()}"
    return ran


def test_a_trace_is_replayed_as_simulate_would_and_saved(server, tmp_path):
    from llmsim import simulate
    from llmsim.client.spec import load_bench
    from llmsim.runs.results import Result
    from llmsim.spec.run_spec import RunSpec, read_yaml

    ran = llmsim_bench(
        server, "--num-requests", "16", "--rate", "6", "--max-model-len", "400", "--slo", "e2el:60000",
        "--out", str(tmp_path),
    )  # fmt: skip
    (saved,) = tmp_path.iterdir()
    result = Result.load(saved)
    table, summary = result.requests, result.summary
    assert (table["status"] == "finished").all(), server.tail()
    spec = load_bench(read_yaml(saved / "config.resolved.yaml"))
    engine = {"max_model_len": spec.max_model_len}
    run = RunSpec(workload=spec.workload, calibration="a100/llama-3-8b", seed=spec.seed)
    simulated = simulate(run.replace(engine=replace(run.engine, **engine))).requests
    assert np.array_equal(table["planned_ns"], simulated["arrival_ns"])
    assert np.array_equal(table["prompt_tokens"], simulated["prompt_tokens"])  # a word is a token: exact
    assert np.array_equal(table["generated"], simulated["output_tokens"])
    assert summary["client"]["outputs"]["as_asked"] == 16
    assert summary["slo"]["attainment"] == 1.0
    _times_are_consistent(result)
    _files_agree(saved, result)
    assert "16 sent, 16 answered, 0 failed" in ran.stdout
    assert "refuses ignore_eos and min_tokens" in ran.stderr
    assert "refuses token ids" in ran.stderr
    page = subprocess.run(
        [sys.executable, "-m", "llmsim", "report", str(saved)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert page.returncode == 0, page.stderr


def _times_are_consistent(result):
    table, times = result.requests, result.token_times
    assert (table["first_token_ns"] > table["sent_ns"]).all()
    assert (table["ended_ns"] >= table["finish_ns"]).all()
    first, last = (getattr(times.groupby("id")["time_ns"], name)().to_numpy() for name in ("first", "last"))
    assert np.array_equal(first, table["first_token_ns"])
    assert np.array_equal(last, table["finish_ns"])
    assert (times.groupby("id")["time_ns"].diff().dropna() >= 0).all()
    assert (table["token_events"] <= table["generated"]).all()  # this server sends several tokens in some pieces


def _files_agree(saved: Path, result):
    lines = pd.read_csv(StringIO((saved / "requests.csv").read_text()))
    record = json.loads((saved / "vllm_bench.json").read_text())
    assert lines["ttft_s"].tolist() == pytest.approx(result.requests["ttft_s"].tolist())
    assert lines[["queued_s", "scheduled_s"]].isna().all(axis=None)
    assert record["completed"] == 16
    assert record["median_ttft_ms"] == pytest.approx(result.summary["median_ttft_ms"])
    assert record["mean_itl_ms"] == pytest.approx(result.summary["mean_itl_ms"])
    assert record["input_lens"] == result.requests["prompt_tokens"].tolist()


def test_chat_in_a_closed_loop(server):
    ran = llmsim_bench(
        server, "--api", "chat", "--num-requests", "8", "--max-concurrency", "2", "--max-model-len", "300", "--json"
    )
    summary = json.loads(ran.stdout)
    assert summary["completed"] == 8
    assert summary["saturation"]["verdict"] == "closed loop"
    prompts = summary["client"]["prompts"]
    assert "4.0 besides" in prompts["kind"]  # the words of the chat template
    assert prompts["max_error_tokens"] == 0
    assert summary["median_ttft_ms"] > 0.5  # not the time of the piece that only opens the answer


def test_answers_that_end_early_are_counted(server):
    sampled = json.dumps({"do_sample": True, "eos_token_id": list(range(4, 24)), "pad_token_id": 2})
    body = json.dumps({"generation_config": sampled})
    ran = llmsim_bench(
        server, "--num-requests", "6", "--rate", "inf", "--max-model-len", "200", "--extra-body", body, "--json"
    )
    outputs = json.loads(ran.stdout)["client"]["outputs"]
    assert outputs["shorter"] > 0
    assert outputs["given_tokens"] < outputs["asked_tokens"]
    assert "were shorter than asked" in ran.stderr


def test_texts_of_a_file(server, tmp_path):
    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps(["the of and", "to in is you that"]))
    ran = llmsim_bench(
        server, "--num-requests", "4", "--rate", "50", "--max-model-len", "100", "--prompts", str(texts), "--json"
    )
    prompts = json.loads(ran.stdout)["client"]["prompts"]
    assert (prompts["reported_tokens"], prompts["asked_tokens"]) == (16, 0)


def test_a_model_that_is_not_there(server):
    options = ["--num-requests", "4", "--rate", "4", "--model", "nonsense"]
    ran = llmsim_bench(server, *options, code=1)
    assert "nonsense" in ran.stderr
    assert "HTTP 400" in ran.stderr


def test_ctrl_c_keeps_what_was_measured(server, tmp_path):
    from llmsim.runs.results import Result

    options = ["--num-requests", "2000", "--rate", "5", "--max-model-len", "100", "--out", str(tmp_path)]
    answered = server.answered()
    running = subprocess.Popen(
        command(server, *options), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=heed_signals,
    )  # fmt: skip
    try:
        until = time.monotonic() + WAIT_S
        while server.answered() < answered + 15 and time.monotonic() < until:  # probes, and then some of the run
            time.sleep(0.1)
        os.kill(running.pid, signal.SIGINT)
        out, error = running.communicate(timeout=2 * WAIT_S)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == 130, f"{out.decode()}\n{error.decode()}\n{server.tail()}"
    (saved,) = tmp_path.iterdir()
    summary = Result.load(saved).summary
    assert summary["client"]["interrupted"]
    assert summary["completed"] > 0
    assert summary["sent"] + summary["requests"]["not_sent"] == 2000
    assert "the run was interrupted" in error.decode().lower()


def test_a_server_that_dies_in_mid_run(folder, model):
    """Every request is a row: those before are answered, those in flight are broken, the rest find nobody."""
    from llmsim.client import bench
    from tests.client.scripted import spec

    # A closed loop: however slow the machine is, most have not been sent when the server dies.
    clients = {"kind": "closed_loop", "max_concurrency": 4}
    with serving(folder, model) as server:
        run = spec(server.url, requests=100, output=40, model=server.model, arrivals=clients)

        def kill_after_some(done: int, total: int) -> None:
            if done == 30:
                server.process.kill()

        result = asyncio.run(bench(run, wait_s=WAIT_S, progress=kill_after_some))
    table, summary = result.requests, result.summary
    reasons = Counter(table["reject_reason"])
    assert len(table) == 100
    assert set(table["status"]) == {"finished", "failed"}
    assert summary["completed"] >= 30
    assert summary["failed"] == 100 - summary["completed"]
    assert reasons["no connection"] >= 60
    assert set(reasons) <= {"", "no connection", "broken stream", "connection lost"}
    assert (table["reject_reason"] == "").sum() == summary["completed"]
    assert summary["client"]["failures"] == {k: n for k, n in sorted(reasons.items()) if k}
    assert any("requests failed" in line for line in result.warnings())
