"""Kernel tables of a made card: composed into models, faults found and mended, gaps refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llmsim.calibrate.importers import small_operations
from llmsim.calibrate.importers.all_reduce import all_reduce_seconds
from llmsim.calibrate.importers.assemble import import_kernels
from llmsim.calibrate.importers.decode_faults import HEAD_BYTES, drop_outliers, mend_cached
from llmsim.calibrate.importers.gpus import GPUS, gpu_named
from llmsim.calibrate.importers.kernel_files import Gemm, read_table
from llmsim.calibrate.importers.memory_plan import plan_memory
from llmsim.calibrate.importers.options import ImportOptions
from llmsim.core.batch import Work
from llmsim.costs.models import load_model
from llmsim.errors import CalibrationError, CapacityError
from tests.calibrate.importers.kernel_worlds import (
    decode_us,
    gemm_ms,
    prompts_us,
    relative,
    table_path,
    write_profile,
    write_tables,
)

H100 = ImportOptions(device="h100", model="llama-3.1-8b", engine="kernels-only")
SHAPE = load_model("llama-3.1-8b")


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return write_tables(tmp_path_factory.mktemp("tables"))


def linear_us(tokens: int, sequences: int, tp: int = 1) -> float:
    """Matrix products and small operations of Llama-3.1-8B on the made card."""
    shapes = [(6144 / tp, 4096), (4096, 4096 / tp), (28672 / tp, 4096), (4096, 14336 / tp)]
    gemm = sum(gemm_ms(tokens, n, k) for n, k in shapes) * 32e3
    at = pd.Series([float(tokens)]).to_numpy()
    small = small_operations.layer_seconds(SHAPE, GPUS["h100"], at, tp)[0] * 32
    small += small_operations.once_seconds(SHAPE, GPUS["h100"], at)[0]
    head = gemm_ms(sequences, SHAPE.vocabulary / tp, 4096) * 1e3
    return gemm + small * 1e6 + head + 25 + 0.5 * sequences


@pytest.mark.parametrize(("decodes", "context"), [(1, 4096), (64, 1024), (16, 4096)])
def test_decodes_are_the_sum_of_their_kernels(tables, decodes, context):
    model = import_kernels(tables, H100).cost_model()
    got = model.seconds(Work(decode_tokens=decodes, decode_context=decodes * context)) * 1e6
    assert relative(got, linear_us(decodes, decodes) + 32 * decode_us(decodes, context)) < 0.02


@pytest.mark.parametrize(("prompts", "length"), [(1, 2048), (2, 512), (8, 128)])
def test_prompts_are_the_sum_of_their_kernels_however_many_share_a_batch(tables, prompts, length):
    model = import_kernels(tables, H100).cost_model()
    pairs = prompts * (length * (length + 1) // 2)
    got = model.seconds(Work(prefill_tokens=prompts * length, prefill_seqs=prompts, prefill_attention=pairs)) * 1e6
    expected = linear_us(prompts * length, prompts) + 32 * prompts_us(prompts, length)
    assert relative(got, expected) < 0.02


def test_two_cards_halve_the_matrices_and_pay_two_all_reduces_a_layer(tables):
    options = ImportOptions(device="h100", model="llama-3.1-8b", tp=2, engine="kernels-only")
    got = import_kernels(tables, options).cost_model().seconds(Work(decode_tokens=64, decode_context=64 * 1024)) * 1e6
    reduce = (5e-3 + 64 * 4096 * 1e-9) * 1e3  # tables count elements
    assert relative(got, linear_us(64, 64, 2) + 32 * decode_us(64, 1024) + 64 * reduce) < 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ImportOptions(device="h100", model="llama-3.1-8b", tp=8), r"no attention of 4 heads and 1 KV heads .* 8/2"),
        (ImportOptions(device="a100", model="llama-3.1-8b"), "no table a100_sxm.*systems there: h100_sxm"),
    ],
)
def test_what_was_not_measured_is_refused(tables, options, message):
    with pytest.raises(CalibrationError, match=message):
        import_kernels(tables, options)


def test_a_number_of_cards_without_all_reduce_is_refused(tmp_path):
    folder = write_tables(tmp_path, gpus=(4,))
    with pytest.raises(CalibrationError, match="no all-reduce among 2 cards"):
        import_kernels(folder, ImportOptions(device="h100", model="llama-3.1-8b", tp=2))


def test_cards_without_nvlink_reduce_by_nccl_but_two_with_little_to_send(tmp_path):
    folder = write_tables(tmp_path, system="l40s")
    path = table_path(folder, "l40s", "0.24.0", "custom_allreduce")
    card, sizes = gpu_named("l40s"), np.array([2.0**20, 2.0**25])
    measured = (5e-3 + sizes / 2 * 1e-9) * 1e-3  # 2 bytes an element
    small, large = all_reduce_seconds(path, card, 2, sizes)
    assert small == pytest.approx(measured[0], rel=0.01)
    assert large == pytest.approx(20e-6 + sizes[1] / (0.75 * 26e9))
    assert all_reduce_seconds(None, card, 4, sizes) == pytest.approx(40e-6 + 1.5 * sizes / (0.75 * 26e9))
    assert all_reduce_seconds(path, gpu_named("h100"), 2, sizes) == pytest.approx(measured, rel=0.01)


def test_the_newest_version_of_a_table_is_read(tmp_path):
    write_tables(tmp_path, version="0.9.0")
    write_tables(tmp_path, version="0.24.0")
    assert "vllm0.24.0_gemm" in import_kernels(tmp_path, H100).provenance.source


def test_a_card_with_flash_attention_2_borrows_what_decodes_cost_beside_prompts(tmp_path):
    folder = write_tables(tmp_path / "t", system="l40s")
    prefix = write_profile(tmp_path / "p")
    plain, like = (
        import_kernels(folder, ImportOptions(device="l40s", model="llama-3.1-8b", like=given))
        for given in (None, str(prefix))
    )
    beside = Work(128, 1, 0, 128 * 129 // 2, 64, 64 * 1024)
    alone = Work(decode_tokens=64, decode_context=64 * 1024)
    assert plain.cost_model().seconds(alone) == like.cost_model().seconds(alone)
    grown = like.cost_model().seconds(beside) - plain.cost_model().seconds(beside)
    expected = 32 * (0.5 * decode_us(64, 1024) + 1e-3 * 128 * 65) * 1e-6
    assert grown == pytest.approx(expected, rel=0.02)
    assert "card_model_tp1" in " ".join(like.provenance.notes)


def test_an_outlier_among_matrix_products_is_replaced(tables):
    table = read_table(table_path(tables, "h100_sxm", "0.24.0", "gemm"), "gemm")
    spoilt = table.copy()
    at = (spoilt["m"] == 1024) & (spoilt["n"] == 4096) & (spoilt["k"] == 4096)
    spoilt.loc[at, "seconds"] *= 2.5
    assert Gemm(table).outliers == 0
    assert Gemm(spoilt).outliers == 1
    assert relative(Gemm(spoilt).curve(4096, 4096)[1024], Gemm(table).curve(4096, 4096)[1024]) < 0.01


def decodes_of(l2: int, heads: int, *, half: bool) -> pd.DataFrame:
    """Decode times of a card that reads 1 GB/ms, at half the time from a cache of `l2` bytes if `half`."""
    rows = []
    for n in (8, 64):
        for k in (16, 64, 256, 1024, 4096, 16384):
            size = n * k * heads * HEAD_BYTES
            seconds = 10e-6 + size / 1e12
            rows.append((n, k, 10e-6 + size / 2e12 if half and size < l2 else seconds))
    return pd.DataFrame(rows, columns=["decodes", "context", "seconds"])


def test_times_from_the_cache_are_found_and_replaced():
    l2 = 64 * 2**20
    true, cached = (decodes_of(l2, 8, half=half) for half in (False, True))
    mended, count = mend_cached(cached, 8, l2)
    assert count >= 4
    assert (cached["seconds"] < 0.7 * true["seconds"]).any()
    error = abs(mended["seconds"].to_numpy() / true["seconds"].to_numpy() - 1)
    assert error[true["context"] >= 256].max() < 0.02
    assert error.max() < 0.15  # the floor is itself a time from the cache
    assert mend_cached(true, 8, l2)[1] == 0


def test_an_outlier_among_decodes_is_left_out_and_a_bend_is_not():
    rows = decodes_of(0, 8, half=False)
    spoilt = rows.copy()
    spoilt.loc[2, "seconds"] *= 6
    assert drop_outliers(rows)[1] == 0
    kept, count = drop_outliers(spoilt)
    assert count == 1
    assert 2 not in kept.index


def test_the_memory_plan_of_a_known_server_is_close():
    plan = plan_memory(SHAPE, gpu_named("rtx-4090"))
    assert plan.num_blocks == pytest.approx(2588, rel=0.02)  # what that server printed


def test_a_model_that_does_not_fit_is_refused_with_the_arithmetic():
    with pytest.raises(CapacityError, match=r"0.9 of 44.4 GiB - weights 61.02 .* use more cards"):
        plan_memory(load_model("qwen3-32b"), gpu_named("l40s"))


def test_cards_must_share_the_heads_evenly():
    with pytest.raises(CapacityError, match="share evenly"):
        plan_memory(SHAPE, gpu_named("h100"), tensor_parallel=3)


def test_an_unknown_card_is_answered_with_the_known_ones():
    with pytest.raises(CalibrationError, match=r"'h10'\. There are: a100, h100, h200, l40s, "):
        gpu_named("h10")
    with pytest.raises(CalibrationError, match="Did you mean 'h100'"):
        gpu_named("H-100")
