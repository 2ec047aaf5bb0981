"""`llmsim calibrations list` and `show`: what is shipped, and one calibration in words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmsim.cli import app
from llmsim.costs.calibration import Calibration, list_calibrations, load_calibration, save
from llmsim.costs.calibration_list import list_text, short_source, tensor_parallel
from llmsim.costs.calibration_text import calibration_text, seconds_text, typical_batches
from llmsim.costs.forms import BatchTime, Coefficient
from llmsim.costs.kernel_tables import KernelTables, Table
from llmsim.errors import did_you_mean

NAME = "rtx-6000-ada/mistral-7b"


def ran(*words: str) -> str:
    done = CliRunner().invoke(app, ["calibrations", *words])
    assert done.exit_code == 0, done.output
    return done.stdout


def tabulated() -> Calibration:
    """A calibration of the tabulated form: a sloping token table, decodes by count and context."""
    curve = Table(name="tokens", at=(1, 512, 4096), values=(0.004, 0.006, 0.05), source="A dense file.")
    decode = Table(
        name="decode", at=(1, 64), context=(128, 2048), values=((1e-4, 2e-4), (2e-4, 3e-3)), source="An attention file."
    )
    kernels = KernelTables(tables=(curve, decode), padding=(1, 2, 4, 8), decodes_per_wave=(33.0, 8.25))
    gaps = Coefficient("graph_gaps", 4.2e-4, "s", "Kernel gaps.")
    return replace(
        load_calibration(NAME), batch_time=BatchTime(form="tabulated", coefficients=(gaps,), kernels=kernels)
    )


def test_the_list_has_a_line_for_every_calibration() -> None:
    plain, listed = ran(), ran("list")
    assert plain == listed
    lines = [line for line in listed.splitlines()[1:] if line]
    assert [line.split()[0] for line in lines] == list_calibrations()
    assert max(map(len, listed.splitlines())) <= 140
    line = next(line for line in lines if line.startswith(NAME))
    assert all(word in line for word in ("stratified", "14,733", "8,192", "3.8 %", "slai_microbenchmark.csv"))


def test_the_list_of_one_device_and_as_json() -> None:
    held = json.loads(ran("list", "--device", "a100", "--json"))
    one = next(item for item in held if item["name"] == "a100/llama-3-8b")
    assert {item["device"] for item in held} == {"a100"}
    assert (one["num_blocks"], one["held_out"], one["tensor_parallel"]) == (26502, None, None)
    wrong = CliRunner().invoke(app, ["calibrations", "list", "--device", "RTX_6000_Ada"])
    assert "Did you mean 'rtx-6000-ada'" in str(wrong.exception)


def test_the_degree_of_tensor_parallelism_is_that_of_the_name() -> None:
    assert [tensor_parallel(name) for name in ("qwen3-32b-tp2", "qwen3-32b", "tp4-x")] == [2, None, None]
    two = replace(load_calibration(NAME), model="mistral-7b-tp2")
    assert list_text([two]).splitlines()[1].split()[:2] == ["rtx-6000-ada/mistral-7b-tp2", "2"]


def test_a_source_is_cut_to_a_few_words() -> None:
    assert short_source("llmsim profile on NVIDIA H200: 160 cases (grid)") == "llmsim profile on NVIDIA H200"
    assert short_source("one " * 30).endswith(" ..")
    assert len(short_source("one " * 30)) <= 44


@pytest.mark.parametrize("name", list_calibrations())
def test_every_shipped_calibration_can_be_shown(name: str) -> None:
    text, calibration = ran("show", name), load_calibration(name)
    assert max(map(len, text.splitlines())) <= 140
    flat = " ".join(text.split())
    parts = (calibration.kv, calibration.limit, calibration.host_overhead, calibration.box, calibration.provenance)
    for said in (*(part.source for part in parts), calibration.errors.note):
        assert " ".join(said.split()) in flat


def test_the_word_show_may_be_left_out() -> None:
    assert ran("show", NAME) == ran(NAME)


def test_show_as_json_is_the_file_as_it_is() -> None:
    assert ran("show", NAME, "--json") == load_calibration(NAME).to_json()


def test_the_text_has_terms_with_units_prices_and_what_is_extrapolated() -> None:
    text = ran("show", NAME)
    assert "per_decode_context     147.7 ns/token  [2]" in text
    assert "constant                     21.47 ms  [1]" in text
    assert "14,733 blocks of 16 tokens = 235,728 tokens; 2,097,152 bytes a block, 28.8 GiB" in text
    assert "held out   mean 3.83 %  p95 13.53 %  worst 13.86 %  of 14 batches" in text
    model = load_calibration(NAME).cost_model()
    lines = text.splitlines()
    for name, work in typical_batches():
        line = next(line for line in lines if line.strip().startswith(name))
        assert f"{model.seconds(work) * 1e3:.2f} ms" in line
    assert next(line for line in lines if "32 decodes, context" in line).endswith(
        "outside: sequences, decode_tokens, decode_context"
    )


def test_the_tabulated_form_shows_its_tables(tmp_path: Path) -> None:
    save(tabulated(), tmp_path / "tables.json")
    text = ran("show", str(tmp_path / "tables.json"))
    part = text[text.index("Batch time: tabulated") : text.index("What batches cost")]
    lines = {line.split()[0]: line for line in part.splitlines() if line}
    assert lines["tokens"].split() == ["tokens", "3", "tokens", "1", "4,096", "4", "ms", "50", "ms", "[1]"]
    assert "2 x 2  decodes x context  1 x 128  64 x 2,048" in lines["decode"]
    assert lines["decode"].endswith("100 us   3 ms  [2]")
    assert lines["graph_gaps"].split() == ["graph_gaps", "420", "us", "[3]"]
    assert "batches of up to 8 tokens are padded to the next of 4 sizes from 1" in text
    assert "the device reads 33 decodes at a time, 8.25 beside prompts" in text
    assert "[2] An attention file." in text
    assert "  1 decode, context 1,024" in calibration_text(tabulated())


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.014936, "s", "14.94 ms"),
        (8.130431e-05, "s/token", "81.3 us/token"),
        (-1.424943e-05, "s/token", "-14.25 us/token"),
        (3.302e-09, "s/pair", "3.302 ns/pair"),
        (2e-12, "s/pair", "2 ps/pair"),
        (2.5, "s", "2.5 s"),
        (0.0, "s/token", "0 s/token"),
    ],
)
def test_times_are_written_in_a_unit_that_fits(value: float, unit: str, text: str) -> None:
    assert seconds_text(value, unit) == text


def test_a_name_that_is_nearly_right_is_suggested_whatever_its_case_and_punctuation() -> None:
    known = ["h100/llama-3.1-8b", "h100/llama-3.1-8b-tp2", "h200/llama-3.1-8b", "a100/llama-3-8b"]
    for wrong in ("H100/Llama-3.1-8B", "h100/llama_3_1_8b", "h100/llama-3-1-8b", "H100/LLAMA3.18B", "h100/lama-3.1-8b"):
        assert did_you_mean(wrong, known) == " Did you mean 'h100/llama-3.1-8b'?"
    assert did_you_mean("h100/llama_3.1_8b_TP2", known) == " Did you mean 'h100/llama-3.1-8b-tp2'?"
    assert did_you_mean("zz", ["b", "a"]) == " Known: a, b."
    assert did_you_mean("H100", known) == f" Did you mean one of {', '.join(map(repr, known[:2]))}?"
    assert did_you_mean("zz", [f"n{at}" for at in range(100, 125)]).endswith("n119 and 5 more.")
    missing = CliRunner().invoke(app, ["calibrations", "RTX_6000_ADA/Mistral_7B"])
    assert "Did you mean 'rtx-6000-ada/mistral-7b'" in str(missing.exception)
