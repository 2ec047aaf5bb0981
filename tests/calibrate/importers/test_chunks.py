"""Chunks on a past, from tables of whole prompts: the rule, and what a card that has both says of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llmsim.calibrate.importers.assemble import import_kernels, import_layer_profile
from llmsim.calibrate.importers.chunks import TILE, Walk, chunk_walk, measured_walk
from llmsim.calibrate.importers.gpus import gpu_named
from llmsim.calibrate.importers.options import ImportOptions
from llmsim.calibrate.importers.rising import never_dearer, rising
from llmsim.core.batch import Work
from llmsim.errors import CalibrationError


def one_head(lengths: list[int]) -> pd.DataFrame:
    """Single prompts of one head: a floor of 8 us and 20 ns a key."""
    return pd.DataFrame(
        {"batch_size": 1, "isl": lengths, "num_heads": 1, "seconds": 8e-6 + 20e-9 * np.array(lengths, dtype=float)}
    )


def test_the_walk_is_the_slope_of_prompts_in_one_wave():
    walk = measured_walk(one_head([64, 512, 2048, 8192]), gpu_named("a100"), 32)
    assert walk.seconds == pytest.approx(20e-9)
    assert walk.first_wave == 108 * TILE // 32


def test_flash_attention_3_splits_keys_so_that_no_tile_walks_alone_and_the_note_says_what_it_else_would_cost():
    walk, note = chunk_walk(one_head([512, 2048]), gpu_named("h100"), 32, 10)
    assert walk.seconds == 0
    assert "20.0 ns a key and layer, 1.64 ms on 8,192 tokens" in note


def test_too_few_prompts_to_see_the_walk_are_refused():
    with pytest.raises(CalibrationError, match=r"two single prompts of 512 to 6912 tokens .* holds 1"):
        measured_walk(one_head([64, 512]), gpu_named("a100"), 32)


def test_a_chunk_pays_one_walk_then_two_then_its_pairs():
    walk, pair = Walk(20e-9, 256), 0.06e-9
    sizes = np.array([1, 256, 288, 320, 600, 1000, 2000])
    expected = [20e-9, 20e-9, 30e-9, 40e-9, 40e-9, 60e-9, 120e-9]
    assert walk.per_key(sizes, pair) == pytest.approx(expected)
    assert {1, 256, 320, 667} <= set(walk.corners(pair))


def test_values_that_rise_stay_and_others_meet_in_the_middle():
    assert rising(np.array([1.0, 2.0, 3.0])).tolist() == [1, 2, 3]
    assert rising(np.array([1.0, 4.0, 2.0, 5.0])).tolist() == [1, 3, 3, 5]
    grid = rising(np.array([[1.0, 5.0], [3.0, 4.0]]), *np.meshgrid([1, 2], [1, 2], indexing="ij"))
    assert grid.tolist() == [[1, 4.5], [3, 4.5]]


def test_a_batch_costs_no_more_than_its_halves():
    tokens = np.array([1.0, 100, 1000, 2000, 8000])
    mended = never_dearer(tokens, np.array([1.0, 2, 10, 24, 80]))
    assert (np.diff(mended) >= 0).all()
    assert (np.diff(mended / tokens) <= 1e-12).all()


def test_the_rule_agrees_with_a_layer_profile_of_the_same_card(shared):
    """RTX PRO 6000: what a past adds to a chunk, from its tables of whole prompts and measured."""
    options = ImportOptions(device="rtx-pro-6000", model="llama-3.1-8b")
    prefix = shared / "groundtruth/vllm_runs/profile/RTXPRO6000_Llama-3.1-8B_tp1"
    measured = import_layer_profile(prefix, options).cost_model()
    composed = import_kernels(shared / "groundtruth/kernels", options).cost_model()

    def added(model, tokens, past):
        own = tokens * (tokens + 1) // 2
        whole, later = Work(tokens, 1, 0, own), Work(tokens, 1, past, own + tokens * past)
        return model.seconds(later) - model.seconds(whole)

    for tokens in (16, 128, 256, 512, 1024, 2048):
        for past in (4096, 8192, 16384):
            expected = added(measured, tokens, past)
            assert added(composed, tokens, past) == pytest.approx(expected, rel=0.16), (tokens, past)
