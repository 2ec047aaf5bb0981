"""Achieved operations and bytes follow from the shapes; ceilings are those of the device's name, or none."""

from __future__ import annotations

import pandas as pd
import pytest

from llmsim.calibrate.fitting.features import SUMS
from llmsim.calibrate.fitting.roofline import DATASHEETS, DeviceCeilings, Roofline, achieved, device_ceilings, scaled
from llmsim.costs.models import load_model

LLAMA = load_model("llama-3-8b")


def table(seconds: float = 0.01, **sums: int) -> pd.DataFrame:
    row = {name: sums.get(name, 0) for name in SUMS}
    return pd.DataFrame([{"case": "x=1", **row, "seconds": seconds}])


def test_a_decode_reads_the_weights_and_its_keys():
    rates = achieved(table(decode_tokens=1, decode_context=1000), LLAMA, value_bytes=2).iloc[0]
    # Llama-3-8B: 8.03e9 parameters less the embeddings' table, 128 KiB of KV a token, one written.
    assert rates["bytes"] == pytest.approx(2 * (8.030e9 - 128256 * 4096) + 1001 * 131072, rel=1e-3)
    assert rates["flops"] == pytest.approx(2 * (8.030e9 - 128256 * 4096) + 4 * 32 * 4096 * 1000, rel=1e-3)
    assert rates["bytes_per_s"] == rates["bytes"] / 0.01
    assert rates["flops_per_s"] == rates["flops"] / 0.01


def test_a_chunk_reads_its_past_and_itself_and_writes_itself():
    chunk = table(prefill_tokens=100, prefill_seqs=1, prefill_context=50, prefill_attention=100 * 50 + 5050)
    rates = achieved(chunk, LLAMA, value_bytes=2).iloc[0]
    assert rates["bytes"] - LLAMA.weight_bytes_read(2) == 131072 * (50 + 100 + 100)
    linear = LLAMA.linear_flops_per_token * 100 + LLAMA.head_flops_per_sequence
    assert rates["flops"] - linear == LLAMA.attention_flops_per_pair * 10050
    half = achieved(chunk, LLAMA, value_bytes=2, kv_bytes=1).iloc[0]
    assert half["bytes"] - LLAMA.weight_bytes_read(2) == 65536 * 250


@pytest.mark.parametrize(
    ("name", "flops", "moved"),
    [
        ("NVIDIA H200", 989e12, 4.8e12),
        ("NVIDIA H100 80GB HBM3", 989e12, 3.35e12),
        ("NVIDIA A100-SXM4-80GB", 312e12, 2.039e12),
        ("NVIDIA L40S", 362e12, 0.864e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12, 1.008e12),
        ("NVIDIA RTX 6000 Ada Generation", 364.2e12, 0.96e12),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 503.8e12, 1.792e12),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 500e12, 1.597e12),
    ],
)
def test_a_known_gpu_has_the_ceilings_of_its_datasheet(name, flops, moved):
    found = device_ceilings(name)
    assert (found.flops, found.bytes_per_s) == (flops, moved)


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA H200 NVL",
        "NVIDIA H100 PCIe",
        "NVIDIA A100-SXM4-40GB",
        "NVIDIA A100 80GB PCIe",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA L40",
        "AMD EPYC 7R13",
        "",
    ],
)
def test_a_device_that_is_not_in_the_table_has_none(name):
    assert device_ceilings(name) is None


def test_every_datasheet_is_named():
    assert all("datasheet" in ceilings.source for _, ceilings in DATASHEETS)


def test_words_give_shares_only_of_known_ceilings():
    rates = achieved(table(decode_tokens=1, decode_context=1000), LLAMA, value_bytes=2)
    known = Roofline(rates, DeviceCeilings(3e12, 3e12, "a made-up card")).words()
    assert "Highest rate of memory: 1.51 TB/s, 50% of 3 TB/s." in known
    assert "Ceilings: a made-up card." in known
    unknown = Roofline(rates, None).words()
    assert "Highest rate of memory: 1.51 TB/s." in unknown
    assert any("not known" in line for line in unknown)


def test_rates_are_written_with_a_prefix():
    assert [scaled(value) for value in (4.8e12, 989e12, 2e9, 12.0)] == ["4.8 T", "989 T", "2 G", "12 "]
