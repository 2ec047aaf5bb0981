"""The shipped calibrations are what the importers make of the real files; they skip where those are absent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from llmsim.calibrate.importers.assemble import import_kernels, import_layer_profile
from llmsim.calibrate.importers.options import ImportOptions
from llmsim.core.batch import Work
from llmsim.costs.calibration import load_calibration
from llmsim.errors import CapacityError

PRO_PREFIX, RTX_4090_PREFIX = "RTXPRO6000_Llama-3.1-8B_tp1", "RTX4090_Llama-3.1-8B_tp1"


@pytest.fixture(scope="session")
def profiles(shared) -> Path:
    """Layer profiles."""
    return shared / "groundtruth/vllm_runs/profile"


@pytest.fixture(scope="session")
def tables(shared) -> Path:
    """Kernel tables."""
    return shared / "groundtruth/kernels"


def undated(calibration):
    """The calibration without the day on which it was made."""
    return replace(calibration, provenance=replace(calibration.provenance, date="2000-01-01"))


def test_the_layer_profile_gives_the_shipped_file(profiles):
    shipped = load_calibration("rtx-pro-6000/llama-3.1-8b")
    made = import_layer_profile(
        profiles / PRO_PREFIX,
        ImportOptions(device="rtx-pro-6000", model="llama-3.1-8b", checked=shipped.engine.checked),
    )
    assert undated(made) == undated(shipped)
    assert "vLLM 0.19" in shipped.engine.checked


def test_two_cards_take_their_all_reduce_from_the_tables(profiles, tables):
    reduce = tables / "rtx_pro_6000_server_vllm0.19.0_custom_allreduce_perf.parquet"
    options = ImportOptions(device="rtx-pro-6000", model="qwen3-32b", tp=2, all_reduce=str(reduce))
    made = import_layer_profile(profiles / "RTXPRO6000_Qwen3-32B_tp2", options)
    assert undated(made) == undated(load_calibration("rtx-pro-6000/qwen3-32b-tp2"))


def test_the_server_s_own_blocks_stand_in_for_a_plan(profiles):
    options = ImportOptions(device="rtx-4090", model="llama-3.1-8b", num_blocks=2588)
    made = import_layer_profile(profiles / RTX_4090_PREFIX, options)
    assert undated(made) == undated(load_calibration("rtx-4090/llama-3.1-8b"))
    assert made.kv.num_blocks == 2588


@pytest.mark.parametrize(
    ("device", "model", "tp", "like"),
    [
        ("h100", "llama-3.1-8b", 1, None),
        ("h200", "llama-3.1-70b", 8, None),
        ("a100", "mistral-7b", 2, PRO_PREFIX),
        ("l40s", "qwen3-8b", 1, RTX_4090_PREFIX),
    ],
)
def test_the_kernel_tables_give_the_shipped_file(profiles, tables, device, model, tp, like):
    given = None if like is None else str(profiles / like)
    made = import_kernels(tables, ImportOptions(device=device, model=model, tp=tp, like=given))
    assert undated(made) == undated(load_calibration(made.name))


def test_a_model_that_does_not_fit_is_refused(tables):
    with pytest.raises(CapacityError, match="does not fit 1 x NVIDIA L40S"):
        import_kernels(tables, ImportOptions(device="l40s", model="qwen3-32b"))


def test_tables_and_layer_profile_of_one_card_agree_on_decodes(profiles, tables):
    """The tables' faults (cache, outliers) mended: two independent measurements of the RTX PRO 6000.

    Matrix products of the tables are up to a tenth slower; attention from the cache would be half.
    """
    options = ImportOptions(device="rtx-pro-6000", model="llama-3.1-8b")
    layers = import_layer_profile(profiles / PRO_PREFIX, options).cost_model()
    kernels = import_kernels(tables, options).cost_model()
    for decodes, context in [(1, 1024), (8, 1024), (32, 1024), (32, 256), (64, 2048), (128, 1024), (128, 4096)]:
        work = Work(decode_tokens=decodes, decode_context=decodes * context)
        assert kernels.seconds(work) == pytest.approx(layers.seconds(work), rel=0.1), work


def test_the_profile_s_faults_are_found(profiles):
    options = ImportOptions(device="rtx-pro-6000", model="llama-3.1-8b")
    notes = " ".join(import_layer_profile(profiles / PRO_PREFIX, options).provenance.notes)
    assert "sums of 3 repeats" in notes
