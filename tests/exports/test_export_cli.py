"""`llmsim export` as a person types it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmsim.cli import app
from llmsim.errors import ConfigError
from llmsim.exports import FORMATS
from tests.exports.runs import made, measured, small
from tests.exports.trace_format import read


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small().save(tmp_path_factory.mktemp("runs"))


def export(*arguments: object) -> str:
    """stdout of the command; raises what it raises."""
    done = CliRunner().invoke(app, ["export", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_lies_beside_the_summary_unless_told_otherwise(format: str, folder: Path, tmp_path: Path) -> None:
    assert export(folder, "--to", format) == str(folder / FORMATS[format])
    assert (folder / FORMATS[format]).is_file()
    out = tmp_path / "new" / "file.json.gz"
    assert export(folder, "--to", format, "--out", out) == str(out)
    assert gzip.decompress(out.read_bytes())
    assert small().load(folder).summary == small().summary


def test_records_are_json_and_a_trace_is_cut(folder: Path, tmp_path: Path) -> None:
    export(folder, "--to", "vllm-bench", "--out", tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["completed"] == 60
    export(folder, "--to", "chrome-trace", "--out", tmp_path / "t.json", "--from-s", "4", "--to-s", "6")
    assert 0 < len(read(tmp_path / "t.json")["X"]) < len(small().iterations)


def test_several_runs_make_one_sweep(folder: Path, tmp_path: Path) -> None:
    other = small("sarathi").save(tmp_path)
    export(folder, other, "--to", "vllm-sweep", "--out", tmp_path / "sweep" / "summary.json")
    records = json.loads((tmp_path / "sweep" / "summary.json").read_text())
    assert [record["scheduler"] for record in records] == ["vllm_v1", "sarathi"]


def test_what_differs_from_the_summary_is_said(tmp_path: Path) -> None:
    run = made(warmup_s=4.0, definitions="slai").save(tmp_path)
    done = CliRunner().invoke(app, ["export", str(run), "--to", "vllm-bench"])
    assert "note: latencies are by vLLM's definitions; the summary's are by slai's" in done.stderr
    assert "requests of the warm-up are left out of everything" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "vllm-bensh"], r"--to must be one of .* but got 'vllm-bensh'. Did you mean 'vllm-bench'\?"),
        (["--to", "mooncake", "--from-s", "1"], "--from-s and --to-s cut a chrome-trace, not mooncake; leave them out"),
        (["--to", "chrome-trace", "--from-s", "9", "--to-s", "1"], "--to-s must be above --from-s"),
    ],
)
def test_options_that_make_no_sense_are_named(arguments: list[str], message: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        export(folder, *arguments)


def test_the_run_itself_is_never_overwritten(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"summary\.json: is a file of the run itself; choose another name"):
        export(folder, "--to", "vllm-sweep", "--out", folder / "summary.json")
    server = measured().save(tmp_path, files={"vllm_bench.json": "{}"})
    with pytest.raises(ConfigError, match=r"vllm_bench\.json: is the record that the measurement itself wrote"):
        export(server, "--to", "vllm-bench")
    assert export(server, "--to", "vllm-bench", "--out", tmp_path / "another.json")
    with pytest.raises(ConfigError, match="got 2 directories; export them one by one"):
        export(folder, folder, "--to", "mooncake")
    with pytest.raises(ConfigError, match="of several runs needs --out"):
        export(folder, folder, "--to", "vllm-sweep")
    with pytest.raises(ConfigError, match="is no complete run directory"):
        export(tmp_path, "--to", "mooncake")
