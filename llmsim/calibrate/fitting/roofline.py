"""What a device achieved: floating-point operations and bytes of each measured batch, against what it could do.

Operations are those of the model's matrix products and of attention; bytes are the weights, read once, and the KV read
and written. Activations, norms and index arrays are in neither, so an achieved rate is a little too low. It can pass a
ceiling where weights or KV stay in a cache between iterations, as those of a tiny model do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from llmsim.costs.models import ModelConfig


@dataclass(frozen=True, slots=True)
class DeviceCeilings:
    """Floating-point operations and bytes a second that the device cannot pass, and where the numbers come from."""

    flops: float
    bytes_per_s: float
    source: str


_SHEET = "datasheet, dense bf16 with fp32 accumulation"
DATASHEETS: tuple[tuple[str, DeviceCeilings], ...] = (
    (r"\bH200\b(?! NVL)", DeviceCeilings(989e12, 4.8e12, f"NVIDIA H200 SXM {_SHEET}")),
    (r"\bH100\b.*(SXM|HBM3)", DeviceCeilings(989e12, 3.35e12, f"NVIDIA H100 SXM {_SHEET}")),
    (r"\bA100.*SXM.*80GB", DeviceCeilings(312e12, 2.039e12, f"NVIDIA A100 80GB SXM {_SHEET}")),
    (r"\bL40S\b", DeviceCeilings(362e12, 0.864e12, f"NVIDIA L40S {_SHEET}")),
    (r"\bRTX 4090\b(?! (D|Laptop))", DeviceCeilings(165.2e12, 1.008e12, f"NVIDIA GeForce RTX 4090 {_SHEET}")),
    (r"\bRTX 6000 Ada\b", DeviceCeilings(364.2e12, 0.960e12, f"NVIDIA RTX 6000 Ada {_SHEET}")),
    (
        r"\bRTX PRO 6000 Blackwell Workstation\b",
        DeviceCeilings(503.8e12, 1.792e12, f"NVIDIA RTX PRO 6000 Blackwell Workstation Edition {_SHEET}"),
    ),
    (
        r"\bRTX PRO 6000 Blackwell Server\b",
        DeviceCeilings(500e12, 1.597e12, f"NVIDIA RTX PRO 6000 Blackwell Server Edition {_SHEET}"),
    ),
)
"""Name as torch and nvidia-smi report it (a pattern), and its ceilings."""


def device_ceilings(name: str) -> DeviceCeilings | None:
    """The datasheet's ceilings of the GPU of that name; None for one that is not in DATASHEETS (and for CPUs)."""
    return next((found for pattern, found in DATASHEETS if re.search(pattern, name)), None)


def achieved(
    table: pd.DataFrame, config: ModelConfig, *, value_bytes: int, kv_bytes: int | None = None
) -> pd.DataFrame:
    """What each batch did: columns case, tokens, flops, bytes, flops_per_s, bytes_per_s, intensity (operations a byte).

    `table` is a fit table, or the predictions of a fit (then by `measured_s`). A weight has `value_bytes` bytes and a
    number in the KV cache `kv_bytes` (default: the same).
    """
    seconds = table["measured_s" if "measured_s" in table.columns else "seconds"].to_numpy(dtype=np.float64)
    held = {name: table[name].to_numpy(dtype=np.float64) for name in table.columns if name.startswith(("pre", "dec"))}
    tokens = held["prefill_tokens"] + held["decode_tokens"]
    sequences = held["prefill_seqs"] + held["decode_tokens"]
    pairs = held["prefill_attention"] + held["decode_context"]
    flops = (
        config.linear_flops_per_token * tokens
        + config.head_flops_per_sequence * sequences
        + config.attention_flops_per_pair * pairs
    )
    keys_read = held["decode_context"] + held["prefill_context"] + held["prefill_tokens"]
    kv_token = config.kv_token_bytes(kv_bytes or value_bytes)
    moved = config.weight_bytes_read(value_bytes) + kv_token * (keys_read + tokens)
    frame = table[["case"]].assign(tokens=tokens.astype(np.int64), flops=flops, bytes=moved)
    return frame.assign(flops_per_s=flops / seconds, bytes_per_s=moved / seconds, intensity=flops / moved)


@dataclass(frozen=True, slots=True)
class Roofline:
    """The rates of every case (`achieved`), and the device's ceilings; None where nobody knows them."""

    rates: pd.DataFrame
    ceilings: DeviceCeilings | None

    def words(self) -> list[str]:
        """The best rates in sentences, as shares of the ceilings where these are known."""
        flops, moved = float(self.rates["flops_per_s"].max()), float(self.rates["bytes_per_s"].max())
        lines = []
        for what, value, unit, most in (
            ("arithmetic", flops, "FLOP/s", self.ceilings and self.ceilings.flops),
            ("memory", moved, "B/s", self.ceilings and self.ceilings.bytes_per_s),
        ):
            share = f", {value / most:.0%} of {scaled(most)}{unit}" if most else ""
            lines.append(f"Highest rate of {what}: {scaled(value)}{unit}{share}.")
        if self.ceilings is None:
            lines.append("The ceilings of this device are not known, so shares of them cannot be given.")
        else:
            lines.append(f"Ceilings: {self.ceilings.source}.")
        return lines


def scaled(value: float) -> str:
    """A rate with its prefix: 4.8e12 as '4.8 T'."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g} "
