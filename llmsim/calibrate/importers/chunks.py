"""Prompt chunks on tokens that were computed before, for tables that hold whole prompts only (`step` = 0).

A query tile of FlashAttention walks over all keys before it, so a chunk of c tokens costs for each key of its past

    max(c * pair, walk * waves(c))       and, whatever its size, no less than a decode of that context (`tabulated`)

with `pair` the seconds a query-key pair when the card is full, the rate of long prompts, and `walk` the seconds a key
of one tile by itself. Version 3 splits the keys of few tiles among the multiprocessors (its scheduler's dynamic
splits), so nothing walks alone: `walk` is 0. Version 2 splits for batches of single tokens only (num_splits is set in
mha_varlen_fwd where max_seqlen_q is 1): while the tiles of a chunk run at the same time, it takes as long as one. Its
tiles of paged keys have 64 queries (kBlockM in run_mha_fwd_splitkv_dispatch), one for each head, and a second wave
begins when there are more tiles than multiprocessors; from the third on waves overlap and `pair` says it all.

`walk` is measured by the same tables: a prompt with so few heads that its tiles run in one wave takes a floor and the
walk of the last tile over all its keys. On the one card that has both, RTX PRO 6000, this gives 20.5 ns a key; its
layer profile has 22.5 for every chunk of 16 to 256 tokens, 42 for 410 to 615 and 62 for 1,024 of Llama-3.1-8B.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from llmsim.calibrate.importers.gpus import Gpu
from llmsim.errors import CalibrationError

TILE = 64
EXAMPLE = 8192
"""Tokens of past in what is said of a walk."""
LEAST_PROMPT = 512
"""Tokens from which a prompt of one wave shows the walk and not its floor."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Walk:
    """Seconds a key of one tile in one layer, and the tokens of a chunk whose tiles just fill the card once."""

    seconds: float
    first_wave: int

    def corners(self, pair: float) -> list[int]:
        """Chunk sizes between which `per_key` is a line."""
        full = [ceil(waves * self.seconds / pair) for waves in (1, 2) if pair]
        return sorted({1, self.first_wave, self.first_wave + TILE, *(size for size in full if size > 1)})

    def per_key(self, tokens: Floats, pair: float) -> Floats:
        """Seconds a key by the tokens of a chunk; the second wave is in full swing one tile after it began."""
        waves = np.clip(1 + (tokens - self.first_wave) / TILE, 1, 2)
        return np.maximum(pair * tokens, self.seconds * waves)


def chunk_walk(prompts: pd.DataFrame, gpu: Gpu, heads: int, layers: int) -> tuple[Walk, str]:
    """What chunks with `heads` heads are priced with on that card, and the band it lies in; as `measured_walk`."""
    measured = measured_walk(prompts, gpu, heads)
    whole = EXAMPLE * measured.seconds * layers * 1e3
    rate = f"{measured.seconds * 1e9:.1f} ns a key and layer, {whole:.2f} ms on {EXAMPLE:,}"
    wave = f"{measured.first_wave} tokens"
    start = "Chunks on tokens computed before were not measured (step is 0 in every row of the table). They cost"
    if gpu.attention == "fa3":
        return Walk(0.0, measured.first_wave), (
            f"{start} the pairs at the rate of long prompts, and at least a decode of that context, as keys are split "
            f"(FlashAttention 3). Not split, a chunk of up to {wave} would walk them in {rate} tokens."
        )
    return measured, (
        f"{start} what a tile walks (FlashAttention 2 does not split the keys of chunks): {rate} tokens for up to "
        f"{wave}, by prompts of one wave in the same table; the pairs at the rate of long prompts, if that is more. At "
        "the least they would cost these pairs, or a decode of that context."
    )


def measured_walk(prompts: pd.DataFrame, gpu: Gpu, heads: int) -> Walk:
    """The walk of a chunk with `heads` heads, from rows (batch_size, isl, num_heads, seconds) of prompts on that card.

    Raises CalibrationError if the rows hold fewer than two prompts in one wave.
    """
    fewest = int(prompts["num_heads"].min())
    one = prompts[(prompts["num_heads"] == fewest) & (prompts["batch_size"] == 1)]
    most = gpu.multiprocessors // fewest * TILE
    line = one[(one["isl"] >= LEAST_PROMPT) & (one["isl"] <= most)].groupby("isl")["seconds"].median()
    if len(line) < 2:
        raise CalibrationError(
            f"the walk of a FlashAttention tile on {gpu.name} needs two single prompts of {LEAST_PROMPT} to {most} "
            f"tokens with the fewest heads ({fewest}), but the table of prompts holds {len(line)}; give the whole table"
        )
    slope = float(np.polyfit(line.index.to_numpy(dtype=np.float64), line.to_numpy(), 1)[0])
    return Walk(max(0.0, slope), max(1, gpu.multiprocessors * TILE // heads))
