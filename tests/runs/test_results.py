"""A result survives the disk unchanged, its directory is never replaced, and its tables can be read."""

from __future__ import annotations

from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from llmsim.errors import ConfigError
from llmsim.metrics import parse_slo, summarize
from llmsim.runs.results import Result
from llmsim.runs.text import CONTESTS, comparison, contest_words, number
from tests.metrics import reference

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def result(seed: int = 0, scheduler: str = "sarathi", **changes: Any) -> Result:
    run = reference.run(seed, max_iterations=30)
    summary = {"scheduler": scheduler} | summarize(
        *run.tables, replicas=2, slo=parse_slo("ttft:20"), kv_num_blocks=10, block_size=16
    )
    return Result(
        name="a run/of <b>mine</b>",
        requests=run.requests,
        iterations=run.iterations,
        token_ranges=run.token_ranges,
        summary=summary | changes,
        manifest={"config": f"seed: {seed}\nname: ü\n", "seed": seed, "wall_time": {"simulation_s": 0.1}},
    )


def test_save_and_load_give_the_same_result(tmp_path: Path) -> None:
    saved = result()
    folder = saved.save(tmp_path / "runs", utc=WHEN)
    assert folder.name.startswith("20260102T030405Z-a-run-of-b-mine-b-")
    assert sorted(path.name for path in folder.iterdir()) == [
        "SHA256SUMS",
        "config.resolved.yaml",
        "iterations.parquet",
        "meta.json",
        "requests.parquet",
        "summary.json",
        "token_ranges.parquet",
    ]
    loaded = Result.load(folder)
    for name in ("requests", "iterations", "token_ranges"):
        pd.testing.assert_frame_equal(getattr(loaded, name), getattr(saved, name))
    assert (loaded.name, loaded.summary, loaded.manifest) == (saved.name, saved.summary, saved.manifest)


def test_same_run_same_summary_bytes_and_no_directory_is_replaced(tmp_path: Path) -> None:
    folders = [result().save(tmp_path, utc=WHEN) for _ in range(3)]
    assert len(set(folders)) == 3
    assert len({(folder / "summary.json").read_bytes() for folder in folders}) == 1
    assert "simulation_s" not in (folders[0] / "summary.json").read_text()
    other = result(1).save(tmp_path, utc=WHEN)
    assert other.name[:-8] == folders[0].name[:-8]
    assert other.name != folders[0].name


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    broken = result(notes=[float("nan")])
    with pytest.raises(ValueError, match="not JSON compliant"):
        broken.save(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="this is a file"):
        result().save(tmp_path / "file")


def test_an_incomplete_directory_is_refused_by_what_is_missing(tmp_path: Path) -> None:
    folder = result().save(tmp_path)
    (folder / "iterations.parquet").unlink()
    with pytest.raises(ConfigError, match=r"iterations\.parquet missing"):
        Result.load(folder)
    with pytest.raises(ConfigError, match=r"summary\.json"):
        Result.load(tmp_path)


def test_a_damaged_summary_is_refused_by_its_name(tmp_path: Path) -> None:
    folder = result().save(tmp_path)
    (folder / "summary.json").write_text("{")
    with pytest.raises(ConfigError, match=r"summary\.json: is no JSON"):
        Result.load(folder)


class Balanced(HTMLParser):
    """Raises if a tag is closed that is not the last opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_is_balanced_and_escapes_names() -> None:
    parser = Balanced()
    parser.feed(result()._repr_html_())
    assert not parser.open
    assert "<b>mine</b>" in parser.text
    assert "requests answered" in parser.text
    assert "unfinished" in parser.text


def test_warnings_name_what_to_distrust() -> None:
    judged = {"verdict": "overloaded", "reason": "it grows", "evidence": {}}
    sequences = {"quantity": "sequences", "side": "above", "low": 1, "high": 8, "worst": 40, "share_of_iterations": 0.2}
    box = {"name": "a100", "iterations_outside_box": 3, "share_outside_box": 0.25, "violations": [sequences]}
    lines = result(saturation=judged, calibration=box).warnings()
    assert "overloaded: it grows" in lines
    assert any("25.0%" in line and "a100" in line and "sequences 40 (measured 1 to 8)" in line for line in lines)
    assert any("unfinished" in line for line in lines)


def test_too_few_requests_for_a_verdict_are_said_with_how_many_would_tell() -> None:
    judged = {"verdict": "undetermined", "reason": "too few", "evidence": {"requests_needed": 1300}}
    run = result(saturation=judged)
    assert "undetermined: too few" in run.warnings()
    assert "about 1,300" in comparison([run])
    unseen = result(saturation={"verdict": "undetermined", "reason": "not seen", "evidence": {}})
    assert not any("undetermined" in line for line in unseen.warnings())


LABELS = ["vllm_v1", "sarathi,chunk_size=512,order=spf", "sarathi,chunk_size=512"]


def test_the_comparison_fits_100_columns_and_names_every_run() -> None:
    for labels in (LABELS, LABELS[:1], ["a", "b"], ["same", "same"]):
        runs = [result(seed, label) for seed, label in enumerate(labels)]
        text = comparison(runs)
        assert max(map(len, text.splitlines())) <= 100
        assert text == "\n".join(line.rstrip() for line in text.splitlines())
        assert all(label in text for label in labels)
        assert Result.compare(runs).index.tolist() == labels
    assert comparison([]) == "no results"


def test_huge_and_missing_numbers_keep_their_columns() -> None:
    slow = result(0, "slow", p99_e2el_ms=98_765_432.0, p50_itl_ms=None)
    lines = comparison([slow, result(1, "fast")]).splitlines()
    assert "98765" in lines[2]
    assert all(len(line) <= 100 for line in lines)


def test_the_best_is_starred_unless_all_print_the_same() -> None:
    one = result(0, "one", p50_ttft_ms=100.0, p99_itl_ms=5.001)
    two = result(0, "two", p50_ttft_ms=200.0, p99_itl_ms=5.002)
    text = comparison([one, two])
    assert "100*" in text
    assert "200*" not in text
    assert "5.00*" not in text


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ((100, 101, 100.5), "Median TTFT: no difference (100 ms to 101 ms)."),
        ((100, 200, 400), "Median TTFT: a wins with 100 ms, 50% below b (200 ms), 75% below c (400 ms)."),
        ((200, 101, 100), "Median TTFT: c and b are level at 100 ms, 50% below a (200 ms)."),
        ((20_000, 50_000, None), "Median TTFT: a wins with 20.0 s, 60% below b (50.0 s)."),
        ((5, None, None), "Median TTFT: nothing to compare, fewer than two runs have one."),
        ((0, 0, 0), "Median TTFT: no difference (0.00 ms to 0.00 ms)."),
    ],
)
def test_the_words_say_who_wins_and_by_how_much(values: tuple[float | None, ...], says: str) -> None:
    summaries = [{"median_ttft_ms": value} for value in values]
    assert contest_words(CONTESTS[0], ["a", "b", "c"], summaries) == says


def test_more_throughput_wins() -> None:
    summaries = [{"output_throughput": 300.0}, {"output_throughput": 150.0}]
    words = contest_words(CONTESTS[2], ["a", "b"], summaries)
    assert words == "Output throughput: a wins with 300 tok/s, 100% above b (150 tok/s)."


def test_overload_and_unanswered_requests_are_said_in_words() -> None:
    judged = {"verdict": "overloaded", "reason": "it grows", "evidence": {}}
    text = comparison([result(0, "one", saturation=judged), result(0, "two")])
    assert "Overloaded: one; latencies grow" in text
    assert "requests unanswered" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0, "0.00"), (9.994, "9.99"), (9.996, "10.0"), (99.96, "100"), (12345.6, "12346")],
)
def test_numbers_keep_about_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text
