"""The SLAI micro-benchmark: its seven rows, what they can tell, and a hinge through them.

A row is one chunk size: `ttft_ms`, the time of a 2,048-token prompt prefilled in such chunks, and `batch_ms`,
the mean over those chunks and one decode. Both are fitted as sums over the chunks really run (384 and 768
end in a shorter one), each with its past context.

Three numbers are fitted. Two more ratios come from arithmetic on the published model, since the data cannot
tell them apart (every row has one prompt length, hence one sum of attention pairs, and one decode at one
context):

- attention runs at the floating-point rate of the linear layers, so a query-key pair costs
  ATTENTION_FLOPS_PER_PAIR / LINEAR_FLOPS_PER_TOKEN of a token;
- the KV cache is read at the rate of the weights, so a context token costs KV_TOKEN_BYTES / WEIGHT_BYTES of
  the floor less the constant: the constant (host time, launches) is paid once an iteration, and charging it
  to the memory would make every KV byte pay it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from llmsim.calibrate.fitting.fit import positive_relative_fit, significant
from llmsim.core.batch import Work
from llmsim.costs.linear import Hinge
from llmsim.errors import CalibrationError

PROMPT_TOKENS = 2048

# Mistral-7B's published configuration.
LAYERS, HIDDEN, HEADS, HEAD_DIM, KV_WIDTH, MLP_WIDTH = 32, 4096, 32, 128, 1024, 14336
LINEAR_FLOPS_PER_TOKEN = 2 * LAYERS * (2 * HIDDEN**2 + 2 * HIDDEN * KV_WIDTH + 3 * HIDDEN * MLP_WIDTH)
ATTENTION_FLOPS_PER_PAIR = 4 * LAYERS * HEADS * HEAD_DIM

WEIGHT_BYTES = 14.5e9
KV_TOKEN_BYTES = 131072


@dataclass(frozen=True, slots=True)
class HingeFit:
    """Fitted coefficients in seconds to five significant digits; chunks up to floor_chunk cost the floor."""

    floor: float
    constant: float
    per_token: float
    floor_chunk: int

    @property
    def per_prefill_attention(self) -> float:
        """Seconds per query-key pair."""
        return significant(self.per_token * ATTENTION_FLOPS_PER_PAIR / LINEAR_FLOPS_PER_TOKEN)

    @property
    def per_decode_context(self) -> float:
        """Seconds per token of decode context."""
        return significant((self.floor - self.constant) * KV_TOKEN_BYTES / WEIGHT_BYTES)

    def cost_model(self) -> Hinge:
        """The model with these coefficients."""
        return Hinge(
            floor=self.floor,
            constant=self.constant,
            per_token=self.per_token,
            per_decode_context=self.per_decode_context,
            per_prefill_attention=self.per_prefill_attention,
        )


def read_microbenchmark(path: str | Path) -> pd.DataFrame:
    """Columns chunk (tokens), ttft_ms and batch_ms (milliseconds)."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise CalibrationError(f"{path}: cannot be read as CSV ({error})") from error
    wanted = ["chunk", "ttft_ms", "batch_ms"]
    if missing := [name for name in wanted if name not in table.columns]:
        raise CalibrationError(f"{path}: column {missing[0]!r} is missing; it has {', '.join(table.columns)}")
    table = table[wanted]
    numeric = all(pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes)
    if (
        len(table) < 3
        or not numeric
        or not np.isfinite(table).all(axis=None)
        or not (table > 0).all(axis=None)
    ):
        raise CalibrationError(f"{path}: needs at least 3 rows of positive numbers")
    return table.astype({"chunk": int})


def prefill_works(chunk: int) -> list[Work]:
    """The iterations that prefill the prompt in chunks of `chunk` tokens."""
    works = []
    for past in range(0, PROMPT_TOKENS, chunk):
        tokens = min(chunk, PROMPT_TOKENS - past)
        pairs = tokens * past + tokens * (tokens + 1) // 2
        works.append(Work(tokens, 1, past, pairs))
    return works


def decode_work() -> Work:
    """The one decode after the prompt."""
    return Work(decode_tokens=1, decode_context=PROMPT_TOKENS)


def measured_seconds(table: pd.DataFrame) -> NDArray[np.float64]:
    """TTFT and batch mean of every row in seconds, shape (rows, 2)."""
    return table[["ttft_ms", "batch_ms"]].to_numpy(dtype=np.float64) / 1e3


def predicted_seconds(price: Callable[[Work], float], table: pd.DataFrame) -> NDArray[np.float64]:
    """TTFT and batch mean of every row where an iteration costs `price`, shape (rows, 2)."""
    decode = price(decode_work())
    rows = []
    for chunk in table["chunk"]:
        works = prefill_works(int(chunk))
        ttft = sum(price(work) for work in works)
        rows.append((ttft, (ttft + decode) / (len(works) + 1)))
    return np.array(rows)


def relative_errors(price: Callable[[Work], float], table: pd.DataFrame) -> NDArray[np.float64]:
    """predicted / measured - 1 of every row, shape (rows, 2)."""
    return np.asarray(predicted_seconds(price, table) / measured_seconds(table) - 1.0, dtype=np.float64)


def fit_hinge(table: pd.DataFrame) -> HingeFit:
    """The best fit over the ways to say which chunks lie on the floor: those up to one of the chunk sizes."""
    fits = [_fit_with_floor(table, int(chunk)) for chunk in sorted(table["chunk"])[:-1]]
    return min(fits, key=lambda fit: float(np.square(relative_errors(fit.cost_model().seconds, table)).sum()))


def _fit_with_floor(table: pd.DataFrame, floor_chunk: int) -> HingeFit:
    """The fit when chunks of up to `floor_chunk` tokens cost the floor."""
    decode = np.array([1.0 + PROMPT_TOKENS * KV_TOKEN_BYTES / WEIGHT_BYTES, 0.0, 0.0])
    rows = []
    for chunk in table["chunk"]:
        works = prefill_works(int(chunk))
        prompt = np.sum([_columns(work, floor_chunk) for work in works], axis=0)
        rows += [prompt, (prompt + decode) / (len(works) + 1)]
    floor, constant, per_flop = positive_relative_fit(np.array(rows), measured_seconds(table).ravel())
    return HingeFit(
        floor=significant(float(floor)),
        constant=significant(float(constant)),
        per_token=significant(float(per_flop) * LINEAR_FLOPS_PER_TOKEN),
        floor_chunk=floor_chunk,
    )


def _columns(work: Work, floor_chunk: int) -> NDArray[np.float64]:
    """How often a prefill iteration pays floor, constant and one floating-point operation."""
    attention = work.prefill_attention * ATTENTION_FLOPS_PER_PAIR
    if work.prefill_tokens <= floor_chunk:
        return np.array([1.0, 0.0, attention])
    return np.array([0.0, 1.0, work.prefill_tokens * LINEAR_FLOPS_PER_TOKEN + attention])
