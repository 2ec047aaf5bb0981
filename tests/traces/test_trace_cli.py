"""`llmsim trace` says what it did, writes what it says, and starts fast."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmsim.cli.trace import app
from llmsim.errors import ConfigError, TraceError
from llmsim.traces.readers import read_trace
from llmsim.traces.stats import trace_stats
from llmsim.traces.twins import load_twin
from tests.traces.conftest import AZURE, REPO

Write = Callable[..., Path]
CONV = str(REPO / "traces" / "azure-conv.json")


def run(*arguments: object) -> str:
    """Standard output of a command; what it raises is raised here."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_stats_prints_a_table_and_json(write: Write) -> None:
    path = write(AZURE)
    text = run("stats", path)
    assert "3 requests (azure; " in text
    assert "prompt_tokens" in text
    assert "1.02 s" in text
    facts = json.loads(run("stats", path, "--json"))
    assert facts["rows"] == 3
    assert facts["arrivals"]["span_s"] == pytest.approx(1.02004)
    assert facts["prompt_tokens"]["max"] == 4808


def test_stats_of_a_twin_says_that_it_draws() -> None:
    text = run("stats", CONV)
    assert "19,366 requests (twin; drawn from the twin azure-conv, seed 0)" in text
    assert "lengths only" in run("stats", REPO / "traces" / "sharegpt4.json")


def test_stats_of_one_row_has_no_rates(write: Write) -> None:
    text = run("stats", write("arrival_s,prompt_tokens,output_tokens\n1,2,3\n"))
    assert "CV of gaps -" in text


def test_stats_agree_with_the_published_table(shared: Path) -> None:
    with (shared / "trace_stats.csv").open() as file:
        published = {row["name"]: row for row in csv.DictReader(file)}
    for name, copy in {
        "azure23_code": "AzureLLMInferenceTrace_code.csv.gz",
        "azure23_conv": "AzureLLMInferenceTrace_conv.csv.gz",
        "mooncake_conversation_trace": "mooncake_conversation_trace.jsonl.gz",
    }.items():
        facts, row = trace_stats(read_trace(shared / copy)), published[name]
        arrivals, prompt = facts["arrivals"], facts["prompt_tokens"]
        for got, column in [
            (facts["rows"], "n"),
            (arrivals["span_s"], "span_s"),
            (arrivals["rate"], "rate"),
            (arrivals["gap_cv"], "gap_cv"),
            (arrivals["idc_1s"], "IDC1s"),
            (arrivals["idc_60s"], "IDC60s"),
            (prompt["mean"], "p_mean"),
            (prompt["p50"], "p50"),
            (prompt["p95"], "p95"),
            (facts["output_tokens"]["mean"], "o_mean"),
            (facts["correlation"]["pearson"], "corr"),
        ]:
            assert got == pytest.approx(float(row[column]), rel=2e-3, abs=6e-3), (name, column)


def test_convert_changes_the_format_and_counts_what_it_drops(write: Write, tmp_path: Path) -> None:
    path = write(AZURE + "2023-11-16 18:17:06,0,5\n")
    with pytest.raises(TraceError, match="row 5, column 'ContextTokens': '0'"):
        run("convert", path, "--out", tmp_path / "o.jsonl")
    assert not (tmp_path / "o.jsonl").exists()
    text = run("convert", path, "--out", tmp_path / "o.jsonl", "--on-bad", "drop")
    assert "3 requests" in text
    assert "dropped: 1 not_positive" in text
    assert read_trace(tmp_path / "o.jsonl").requests["prompt_tokens"].tolist() == [4808, 3180, 110]
    assert "clipped: 2 requests" in run(
        "convert",
        path,
        "-o",
        tmp_path / "o.csv",
        "--on-bad",
        "drop",
        "--max-model-len",
        1000,
        "--on-long",
        "clip",
    )


def test_convert_takes_a_column_map(write: Write, tmp_path: Path) -> None:
    path = write("ts,in,out\n1500,10,2\n")
    maps = ("--map", "arrival_ms=ts", "--map", "prompt_tokens=in", "--map", "output_tokens=out")
    run("convert", path, *maps, "--out", tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text() == "arrival_ns,prompt_tokens,output_tokens\n1500000000,10,2\n"
    with pytest.raises(ConfigError, match="--map is written FIELD=COLUMN but got 'ts'"):
        run("convert", path, "--map", "ts", "--out", tmp_path / "o.csv")


def test_synth_makes_the_same_file_again(tmp_path: Path) -> None:
    options = ("--prompt-tokens", "lognormal,mean=1000,std=500", "--output-tokens", "fixed,value=128", "-n", 300)
    classes = ("--class", "name=paying,share=0.5,priority=true", "--class", "name=free,share=0.5,tbt_s=0.5")
    for name in ("a.csv", "b.csv"):
        assert "300 requests" in run(
            "synth",
            *options,
            *classes,
            "--arrivals",
            "gamma,rate=5,burstiness=0.5",
            "--seed",
            3,
            "--out",
            tmp_path / name,
        )
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    table = read_trace(tmp_path / "a.csv").requests
    assert set(table["slo_class"]) == {"paying", "free"}
    assert (table["output_tokens"] == 128).all()


@pytest.mark.parametrize(
    "arrivals",
    [(), ("--rate", "4"), ("--arrivals", "ramp,ramp=0:1/60:5"), ("--arrivals", "bursts,rate=4,burst_size=5")],
)
def test_synth_draws_from_a_twin(tmp_path: Path, arrivals: tuple[str, ...]) -> None:
    run("synth", CONV, "-n", 50, *arrivals, "--out", tmp_path / "o.jsonl.gz")
    assert len(read_trace(tmp_path / "o.jsonl.gz").requests) == 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--prompt-tokens", "lognormal,mean=9,sd=5", "--output-tokens", "fixed,value=1"),
            "unknown option 'sd'. Did you mean 'std'",
        ),
        (("--prompt-tokens", "fixed,value", "--output-tokens", "fixed,value=1"), "written NAME=VALUE but got 'value'"),
        (("--arrivals", "closed_loop,max_concurrency=4", CONV), "no file can hold its times"),
        (("--arrivals", "poisson", "--rate", "4", CONV), "not both"),
        (("--arrivals", "ramp,ramp=0:x", CONV), "SECONDS:RATE"),
        (("nowhere",), "no shipped workload is called 'nowhere'"),
        (("--class", "name=a,shares=1", CONV), "unknown option 'shares'. Did you mean 'share'"),
    ],
)
def test_synth_explains_what_it_cannot_do(tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    with pytest.raises((ConfigError, TraceError), match=message):
        run("synth", *options, "--out", tmp_path / "o.csv")
    assert not list(tmp_path.iterdir())


def test_twin_writes_a_twin_that_can_be_drawn(tmp_path: Path) -> None:
    run("synth", CONV, "-n", 500, "--out", tmp_path / "rows.csv")
    assert "twin of 500 requests" in run("twin", tmp_path / "rows.csv", "--out", tmp_path / "mine.json")
    twin = load_twin(tmp_path / "mine.json")
    assert (twin.name, twin.rows, twin.has_arrivals) == ("mine", 500, True)
    assert "500 requests (twin" in run("stats", tmp_path / "mine.json")


def test_fetch_passes_on_what_went_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(TraceError, match="Network is unreachable"):
        run("fetch", "azure-conv", "--out", tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="Did you mean 'sharegpt4'"):
        run("fetch", "sharegpt", "--out", tmp_path)


def test_fetch_leaves_a_right_file_alone(shared: Path, tmp_path: Path) -> None:
    copy = tmp_path / "AzureLLMInferenceTrace_code.csv"
    copy.write_bytes(gzip.decompress((shared / "AzureLLMInferenceTrace_code.csv.gz").read_bytes()))
    assert "already there, 8,819 rows" in run("fetch", "azure-code", "--out", tmp_path)


def test_help_loads_neither_pandas_nor_numpy() -> None:
    code = "import sys, llmsim.cli.trace; print([m for m in ('numpy', 'pandas') if m in sys.modules])"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPO).stdout == "[]\n"
