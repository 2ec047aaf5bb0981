"""The report says who wins with the numbers of the terminal, warns, and stays small however long a run was."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from llmsim.cli import app
from llmsim.errors import ConfigError
from llmsim.reports.plots.overview import differences, latency_table, load_table, words
from llmsim.reports.plots.style import styles
from llmsim.reports.run_report import write_report
from llmsim.runs.labels import run_names
from llmsim.runs.results import Result
from llmsim.runs.simulation import simulate
from llmsim.runs.text import comparison, same_requests
from llmsim.spec.run_spec import load_runs
from tests.effort import examples
from tests.reports.plots.runs import made

PLOTLY_BYTES = 4_800_000


def page(tmp_path: Path, *runs: Result) -> str:
    """The page's own text, without plotly.js."""
    text = write_report(runs, tmp_path / "report.html").read_text()
    return text[text.index("<body>") :]


def numbers(table: str) -> list[list[str]]:
    """Cells of a table's rows, a star behind those shown as best."""
    found = []
    for row in re.findall(r"<tr>(.*?)</tr>", table.split("<tbody>")[1]):
        cells = re.findall(r"<td([^>]*)>(.*?)</td>", row)
        found.append([re.sub("<.*?>", "", text) + ("*" if "best" in kind else "") for kind, text in cells])
    return found


def test_the_tables_hold_the_numbers_and_stars_of_the_terminal() -> None:
    runs = [made(0, "one"), made(0, "two", p99_e2el_ms=20_000.0, p50_itl_ms=None), made(2, "three")]
    names, summaries = [run.label for run in runs], [run.summary for run in runs]
    _, latency, load = comparison(runs).split("\n\n")[:3]
    expected = [line.split()[1:] for line in latency.splitlines()[2:]]
    groups = same_requests(runs)
    assert numbers(latency_table(names, summaries, styles(names), groups)) == expected
    # The verdict may be of several words; the columns before it are the terminal's.
    rows = numbers(load_table(names, summaries, styles(names), groups))
    for row, line in zip(rows, load.splitlines()[1:], strict=True):
        assert row == line.split(maxsplit=len(row))[1:]


def test_the_top_says_in_words_what_the_runs_are_of_and_how_many_met_the_slo(tmp_path: Path) -> None:
    run = {
        "calibration": "h100/llama-3.1-8b",
        "workload": {"lengths": {"prompt": 1500, "output": 30}, "num_requests": 40},
        "schedulers": ["sarathi", "vllm_v1"],
        "slo": ["ttft:60"],
    }
    loads = [{**run, "workload": {**run["workload"], "arrivals": {"kind": "poisson", "rate": rate}}} for rate in (4, 8)]
    results = [simulate(spec) for load in loads for spec in load_runs(mapping=load)]
    text = page(tmp_path, *results)
    for fact, told in (
        ("GPU and model", "llama-3.1-8b on h100"),
        ("replicas", "1 replica"),
        ("requests", "40 requests with prompts of 1,500 tokens, outputs of 30 tokens"),
        ("SLO", "TTFT 60 ms"),
    ):
        assert f"<li><b>{fact}</b> {told}</li>" in text
    assert re.search(r"<b>offered</b> [\d.]+ requests/s \(poisson, rate 4\) \| [\d.]+ requests/s", text)
    assert re.search(r"Requests within the SLO: [\d.]+ % with ", text)
    assert "Load: " in text
    assert text.count("never held against a server") == 1  # of all four runs
    assert run_names(results) == ["sarathi, 4 req/s", "vllm_v1, 4 req/s", "sarathi, 8 req/s", "vllm_v1, 8 req/s"]
    terminal = comparison(results)
    assert "4 req/s: Median TTFT" in terminal
    assert "8 req/s: Median TTFT" in terminal


def test_a_narrow_page_gives_every_cell_its_heading(tmp_path: Path) -> None:
    text = page(tmp_path, made(0, "one"), made(1, "two"))
    kinds = re.findall(r"<table class='(t\w{8})'", text)
    assert len(kinds) >= 4
    assert all(f"<style>.{kind} td" in text for kind in kinds if f"{kind} td" in text)
    assert '{ --head: "TTFT (ms) p50"; }' in text
    assert "@media (max-width: 760px)" in (tmp_path / "report.html").read_text()


def test_the_parts_stand_in_the_order_a_reader_needs(tmp_path: Path) -> None:
    text = page(tmp_path, made(0, "one"), made(1, "two"))
    heads = re.findall(r"<h2>(.*?)</h2>", text)
    assert heads == [
        "Who wins",
        "Can the numbers be trusted?",
        "Latencies",
        "Timelines",
        "Service levels",
        "Where these runs come from",
    ]
    assert text.count('class="plotly-graph-div"') == 4  # distributions, a timeline each, attainment
    assert "Service levels" not in page(tmp_path, made(slo=None))
    assert "<h2>Result</h2>" in page(tmp_path, made())


def test_every_warning_and_the_reason_of_the_verdict_are_said_once(tmp_path: Path) -> None:
    judged = {"verdict": "overloaded", "reason": "the queue <grows>", "evidence": {}}
    text = page(tmp_path, made(0, "one", saturation=judged, notes=["a note & more"]))
    assert text.count("the queue &lt;grows&gt;") == 1
    assert text.count("a note &amp; more") == 1
    assert 'class="verdict overloaded"' in text
    assert '<td class="text">none</td>' in page(tmp_path, made(0, "two", notes=[]))


def test_the_words_name_the_winner_the_unanswered_and_workloads_that_differ() -> None:
    one, two = made(0, "one", median_ttft_ms=10.0), made(0, "two", median_ttft_ms=20.0, completed=30, sent=40)
    said = " ".join(words(["one", "two"], [one, two]))
    assert "Median TTFT: one wins with 10.0 ms, 50% below two" in said
    assert "two left 10 of 40 requests unanswered" in said
    assert "same requests" not in said
    assert "did not serve the same requests" in " ".join(words(["one", "two"], [one, made(1, "two")]))


def test_what_differs_between_runs_is_listed_and_only_that(tmp_path: Path) -> None:
    runs = [made(0, "one"), made(1, "two")]
    assert differences(runs) == {"scheduler.name": ["one", "two"], "seed": ["0", "1"]}
    assert "What differs" not in page(tmp_path, made(0, "one"), made(0, "one"))
    assert "What differs" in page(tmp_path, *runs)


def test_provenance_shows_command_calibration_and_configuration_escaped(tmp_path: Path) -> None:
    text = page(tmp_path, made(5, "one"))
    for said in (
        "llmsim simulate &#x27;a file.yaml&#x27; --seed 5",
        "calibration a100/llama",
        "a &lt;measured&gt; table (sha256 abc)",
        "llmsim 0.1.0",
        "<pre>name: demo",
    ):
        assert said in text
    assert "<details>" in text


def test_a_name_that_looks_like_html_is_shown_as_it_is(tmp_path: Path) -> None:
    text = page(tmp_path, replace(made(0, "<Mine object at 0x1>"), name="<b>bold</b>"))
    assert "&lt;Mine object at 0x1&gt;" in text
    assert "<Mine" not in text
    assert "<b>bold" not in text


def test_a_run_without_manifest_iterations_or_verdict_still_has_a_report(tmp_path: Path) -> None:
    run = made(slo=None, saturation={}, kv={})
    bare = replace(run, manifest={}, iterations=run.iterations.iloc[:0], token_ranges=run.token_ranges.iloc[:0])
    assert "no iteration ran" in page(tmp_path, bare)
    with pytest.raises(ConfigError, match="at least one run"):
        write_report([], tmp_path / "report.html")


def long(iterations: int, seed: int) -> Result:
    """A run of many iterations and gaps, all different."""
    rng = np.random.default_rng(seed)
    run = made(seed, f"run {seed}")
    ends = np.cumsum(rng.integers(10**6, 10**8, iterations))
    table = pd.DataFrame({name: rng.integers(0, 500, iterations) for name in run.iterations.columns})
    table = table.assign(replica=0, iteration=np.arange(iterations), start_ns=np.append(0, ends[:-1]), end_ns=ends)
    ranges = run.token_ranges.iloc[:1].assign(id=0, replica=0, first_iteration=0, last_iteration=iterations - 1)
    return replace(run, iterations=table, token_ranges=ranges)


@pytest.mark.parametrize(("runs", "iterations"), [(1, 1_000_000), (examples(40, 16), 5_000)])
def test_the_page_stays_small_for_long_runs_and_for_many(tmp_path: Path, runs: int, iterations: int) -> None:
    results = [long(iterations, seed) for seed in range(runs)]
    size = write_report(results, tmp_path / "report.html").stat().st_size
    assert size < (5_300_000 if runs == 1 else PLOTLY_BYTES + 130_000 * runs)
    assert size > PLOTLY_BYTES - 500_000


def test_the_command_writes_beside_one_run_and_where_told_for_several(tmp_path: Path, monkeypatch) -> None:
    folders = [str(made(seed, f"run{seed}").save(tmp_path / "runs")) for seed in (0, 1)]
    monkeypatch.chdir(tmp_path)
    alone = CliRunner().invoke(app, ["report", folders[0]], catch_exceptions=False)
    assert alone.stdout == f"{folders[0]}/report.html\n"
    assert (Path(folders[0]) / "report.html").stat().st_size > 10**6
    Result.load(folders[0])
    both = CliRunner().invoke(app, ["report", *folders], catch_exceptions=False)
    assert both.stdout == "report.html\n"
    assert (tmp_path / "report.html").exists()
    again = CliRunner().invoke(app, ["report", *folders, "--out", "new/page.html"], catch_exceptions=False)
    assert (tmp_path / again.stdout.strip()).exists()


def test_the_command_refuses_what_is_no_run_directory_and_says_what_to_name(tmp_path: Path) -> None:
    run = made().save(tmp_path / "runs")
    (tmp_path / "file").touch()
    for arguments, says in (
        ([str(tmp_path / "runs")], "holds 1 run directories but is none: name them, as"),
        ([str(tmp_path / "nowhere")], "does not exist"),
        ([str(tmp_path / "file")], "is a file"),
        ([str(run), "--out", str(tmp_path)], "this is a directory"),
    ):
        ran = CliRunner().invoke(app, ["report", *arguments])
        assert isinstance(ran.exception, ConfigError)
        assert says in str(ran.exception)
