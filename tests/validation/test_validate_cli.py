"""profile -> simulate -> validate on the command line, with a very small model."""

from __future__ import annotations

import importlib.util
import json

import pytest
from typer.testing import CliRunner

from llmsim.cli import app
from llmsim.costs.calibration import load_calibration
from llmsim.errors import ConfigError
from llmsim.validation.record import LiveRun

SHAPE = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 61, "max_position_embeddings": 256,
}  # fmt: skip


def llmsim(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A calibration of a very small model."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("made")
    shape = folder / "small.json"
    shape.write_text(json.dumps(SHAPE))
    options = ("--repeats", 3, "--max-tokens", 64, "--max-seqs", 16, "--kv-gib", 0.01)
    ran = llmsim("profile", "--model", shape, "--out", folder / "out", *options)
    assert ran.exit_code == 0, ran.output
    return folder / "out" / "calibration.json"


@pytest.mark.live
def test_the_three_commands_work_together(made, tmp_path):
    ran = llmsim(
        "simulate", "--calibration", made, "--scheduler", "sarathi", "--rate", "50", "--trace", "sharegpt4",
        "--on-long", "clip", "--num-requests", 20, "--json",
    )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    ran = llmsim(
        "validate", "--calibration", made, "--loads", "0.5,0.9", "--num-requests", 40, "--out", tmp_path / "kept",
        "--tolerance", "mean:0.0001", "--json",
    )  # fmt: skip
    assert ran.exit_code == 3, ran.output
    assert "beyond tolerance: mean TTFT" in ran.stderr
    comparisons = json.loads(ran.stdout)
    assert [found["load"] for found in comparisons] == [0.5, 0.9]
    assert all(found["replay"] == "identical" for found in comparisons)
    assert (tmp_path / "kept" / "validation.html").stat().st_size > 1e6
    live = [LiveRun.load(p.parent) for p in (tmp_path / "kept").glob("*/composition.parquet")]
    assert len(live) == 2
    assert all((run.timings["forward_ns"] > 0).all() for run in live)


@pytest.mark.live
def test_a_live_run_makes_a_calibration_of_its_own(made, tmp_path):
    ran = llmsim("validate", "--calibration", made, "--loads", "0.9", "--num-requests", 150, "--out", tmp_path / "kept")
    assert ran.exit_code == 0, ran.output
    assert "replay on the recorded times: identical" in ran.stdout
    (folder,) = {p.parent for p in (tmp_path / "kept").glob("*/composition.parquet")}
    ran = llmsim("profile", "--from-run", folder, "--calibration-out", tmp_path / "own.json")
    assert ran.exit_code == 0, ran.output
    own, original = load_calibration(tmp_path / "own.json"), load_calibration(made)
    assert own.kv == original.kv
    assert own.batch_time != original.batch_time
    assert own.errors.in_sample.mape_pct < 100  # a fit of this very run; the margin is for a busy machine
    assert f"the run {folder.name}" in own.provenance.source


@pytest.mark.live
def test_the_batchers_run_at_a_common_rate(made):
    ran = llmsim(
        "validate", "--calibration", made, "--rates", "5", "--num-requests", 12, "--json", "--scheduler", "naive",
        "--scheduler", "dynamic", "--scheduler", "vllm_v1",
    )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    assert [one["scheduler"] for one in found] == ["naive", "dynamic", "vllm_v1"]
    assert [one["rate"] for one in found] == pytest.approx([5.0, 5.0, 5.0])
    assert all(one["replay"] == "identical" for one in found)


@pytest.mark.live
def test_what_cannot_be_validated_is_refused_with_what_to_do(made):
    for arguments, words in (
        (("--calibration", "rtx-6000-ada/mistral-7b"), "takes a calibration that `llmsim profile` made"),
        (("--calibration", made, "--loads", "half"), "numbers with commas"),
        (("--calibration", made, "--clock", "sundial"), "skip or wall"),
        (("--calibration", made, "--tolerance", "men:3"), "Did you mean 'mean'"),
        ((), "'workload' is missing|'calibration' is missing"),
    ):
        ran = llmsim("validate", *arguments)
        assert isinstance(ran.exception, ConfigError), (arguments, ran.output)
        with pytest.raises(ConfigError, match=words):
            raise ran.exception


@pytest.mark.parametrize("command", [("profile",), ("validate", "--calibration", "rtx-6000-ada/mistral-7b")])
def test_without_torch_it_is_said_what_to_install(command, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "torch" else real(name, *a))
    ran = llmsim(*command)
    assert isinstance(ran.exception, ConfigError)
    assert "make live" in str(ran.exception)
