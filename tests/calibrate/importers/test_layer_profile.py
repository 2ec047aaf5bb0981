"""A made layer profile gives back the formula it was made by; what is wrong with a file is named."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from llmsim.calibrate.importers.assemble import import_layer_profile
from llmsim.calibrate.importers.options import ImportOptions
from llmsim.core.batch import Work
from llmsim.costs.calibration import read_calibration, save
from llmsim.errors import CalibrationError
from tests.calibrate.importers.kernel_worlds import PIECES, decode_us, mixed_us, prefill_us, relative, write_profile

OPTIONS = ImportOptions(device="rtx-pro-6000", model="llama-3.1-8b", engine="kernels-only")
LAYERS = 32


def linear_us(tokens: int) -> float:
    """All pieces but attention, of 32 layers."""
    layer = sum(PIECES[name] for name in PIECES if name not in ("embedding", "final_layernorm")) + PIECES["layernorm"]
    return (LAYERS * layer + 5) * (1 + tokens / 1000)


def head_us(sequences: int) -> float:
    """LM head and sampler."""
    return 725 + 1.5 * sequences


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    prefix = write_profile(tmp_path_factory.mktemp("profile"))
    return import_layer_profile(prefix, OPTIONS).cost_model()


@pytest.mark.parametrize(("decodes", "context"), [(1, 1024), (8, 3000), (30, 700), (128, 4096), (128, 9000)])
def test_decodes_alone(model, decodes, context):
    got = model.seconds(Work(decode_tokens=decodes, decode_context=decodes * context)) * 1e6
    assert relative(got, linear_us(decodes) + head_us(decodes) + LAYERS * decode_us(decodes, context)) < 0.002


@pytest.mark.parametrize(("chunk", "past"), [(16, 0), (128, 300), (512, 1024), (2048, 0)])
def test_a_prompt_alone(model, chunk, past):
    work = Work(prefill_tokens=chunk, prefill_seqs=1, prefill_attention=chunk * past + chunk * (chunk + 1) // 2)
    expected = linear_us(chunk) + head_us(1) + LAYERS * prefill_us(chunk, past)
    assert relative(model.seconds(work) * 1e6, expected) < 0.002


@pytest.mark.parametrize(("chunk", "decodes", "context"), [(128, 64, 1024), (512, 8, 2048), (512, 128, 600)])
def test_decodes_beside_a_prompt(model, chunk, decodes, context):
    pairs = chunk * (chunk + 1) // 2
    work = Work(chunk, 1, 0, pairs, decodes, decodes * context)
    expected = linear_us(chunk + decodes) + head_us(1 + decodes) + LAYERS * mixed_us(chunk, 0, decodes, context)
    assert relative(model.seconds(work) * 1e6, expected) < 0.01


@pytest.mark.parametrize("repeats", [1, 3])
def test_sums_of_repeats_are_found_and_divided(tmp_path, repeats):
    calibration = import_layer_profile(write_profile(tmp_path, repeats=repeats, tail_ns=12.0), OPTIONS)
    alone, beside = (
        calibration.batch_time.kernels.table(name).built() for name in ("decode_tail", "decode_mixed_tail")
    )
    split, unsplit = (0.8 * 376 / 8 // 1, 0.8 * 376 / 8 // 1 + 1)  # FlashAttention's rule for 188 multiprocessors
    assert [alone.seconds(n) for n in (8, split)] == [0, 0]
    for seconds in (alone.seconds(unsplit), alone.seconds(128), beside.seconds(8), beside.seconds(128)):
        assert seconds / LAYERS * 1e9 == pytest.approx(12.0, rel=1e-3)
    assert any(f"sums of {repeats} repeats" in note for note in calibration.provenance.notes) == (repeats > 1)


def test_errors_are_small_where_the_formula_holds(tmp_path):
    errors = import_layer_profile(write_profile(tmp_path), OPTIONS).errors
    assert errors.in_sample.mape_pct < 0.5
    assert errors.held_out.mape_pct < 1.5


def test_the_file_survives_saving_and_names_its_sources(tmp_path):
    calibration = import_layer_profile(write_profile(tmp_path), OPTIONS)
    save(calibration, tmp_path / "c.json")
    assert read_calibration(tmp_path / "c.json") == calibration
    assert "card_model_tp1_attention.csv.gz" in calibration.provenance.source
    assert str(tmp_path) not in (tmp_path / "c.json").read_text()


def test_an_engine_adds_padding_gaps_and_async_scheduling(tmp_path):
    prefix = write_profile(tmp_path)
    plain, engine = (
        import_layer_profile(prefix, ImportOptions(device="rtx-pro-6000", model="llama-3.1-8b", engine=name))
        for name in ("kernels-only", "vllm-0.19")
    )
    at_8 = Work(decode_tokens=8, decode_context=8000)
    gap = engine.cost_model().seconds(at_8) - plain.cost_model().seconds(at_8)
    assert gap == pytest.approx(1.3e-6 * (10 * LAYERS + 4), rel=1e-3)
    assert engine.engine.async_scheduling
    assert not plain.engine.async_scheduling
    assert engine.batch_time.kernels.padding[-1] == 512


def change(prefix: Path, kind: str, edit) -> None:
    path = next(prefix.parent.glob(f"*_{kind}.csv*"))
    edit(pd.read_csv(path)).to_csv(path, index=False)


@pytest.mark.parametrize(
    ("kind", "edit", "message"),
    [
        ("dense", lambda t: t[t["layer"] != "o_proj"], "no times of o_proj"),
        ("dense", lambda t: t[(t["layer"] != "o_proj") | (t["tokens"] < 500)], "not every piece was timed"),
        ("dense", lambda t: t.rename(columns={"time_us": "time_ms"}), "lacks the columns time_us"),
        ("attention", lambda t: t.assign(time_us=t["time_us"].where(t.index != 3, 0)), "row 5 holds no time above 0"),
        ("attention", lambda t: t[t["n_decode"] > 0], "no batch of prompts alone"),
        ("skew", lambda t: t.assign(t_max_us=t["t_max_us"] * 1.4), "1.40 times as long"),
    ],
)
def test_a_fault_of_a_file_is_named(tmp_path, kind, edit, message):
    prefix = write_profile(tmp_path)
    change(prefix, kind, edit)
    with pytest.raises(CalibrationError, match=message):
        import_layer_profile(prefix, OPTIONS)


def test_a_missing_profile_says_what_to_give(tmp_path):
    with pytest.raises(CalibrationError, match=r"nothing_dense.csv .* give the part of the path"):
        import_layer_profile(tmp_path / "nothing", OPTIONS)


def test_two_cards_need_an_all_reduce(tmp_path):
    options = ImportOptions(device="rtx-pro-6000", model="llama-3.1-8b", tp=2)
    with pytest.raises(CalibrationError, match="--all-reduce"):
        import_layer_profile(write_profile(tmp_path), options)
