"""The segmented model of the SLAI micro-benchmark: a line between each two measured chunk sizes.

The measured times are no hinge: from 256 to 384 tokens an iteration grows by 47 %, from 384 to 512 by 20 %, so that a
prompt of 2,048 tokens takes longer in chunks of 384 (the sixth of 128 tokens) than in chunks of 256. The GEMMs of the
linear layers take such steps where a tile more is needed. This model follows them: seconds of the linear layers are a
polyline over the tokens with a knot at one token and at each chunk size, fitted to all rows (TTFT and batch mean).

Attention and decode context cannot be read from these rows; both are those of the hinge fit (`slai_microbenchmark`),
which divides an iteration into a fixed time and the time to read weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from llmsim.calibrate.fitting.fit import positive_relative_fit, significant
from llmsim.calibrate.published.slai_microbenchmark import (
    HingeFit,
    decode_work,
    fit_hinge,
    measured_seconds,
    prefill_works,
    relative_errors,
)
from llmsim.core.batch import Work

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Segment:
    """Seconds of the linear layers for token counts up to `max_tokens` (None: any): constant + per_token n."""

    max_tokens: int | None
    constant: float
    per_token: float


@dataclass(frozen=True, slots=True)
class SegmentFit:
    """The polyline, ends of segments ascending, and the two terms that are not fitted (seconds per pair, token)."""

    segments: tuple[Segment, ...]
    per_prefill_attention: float
    per_decode_context: float

    def seconds(self, work: Work) -> float:
        """Price of an iteration."""
        last = self.segments[-1]
        segment = next((s for s in self.segments[:-1] if work.tokens <= (s.max_tokens or 0)), last)
        linear = segment.constant + segment.per_token * work.tokens
        contexts = self.per_decode_context * work.decode_context + self.per_prefill_attention * work.prefill_attention
        return linear + contexts


def fit_segments(table: pd.DataFrame) -> SegmentFit:
    """The polyline that leaves the least squares of relative errors; it never falls."""
    hinge = fit_hinge(table)
    knots = np.array([1, *sorted(table["chunk"])], dtype=np.float64)
    columns, rest = [], []
    decode_columns, decode_rest = _columns(decode_work(), knots), _other_terms(decode_work(), hinge)
    for chunk in table["chunk"]:
        works = prefill_works(int(chunk))
        prompt = np.sum([_columns(work, knots) for work in works], axis=0)
        prompt_rest = sum(_other_terms(work, hinge) for work in works)
        columns += [prompt, (prompt + decode_columns) / (len(works) + 1)]
        rest += [prompt_rest, (prompt_rest + decode_rest) / (len(works) + 1)]
    seconds = measured_seconds(table).ravel() - np.array(rest)
    first, *slopes = positive_relative_fit(np.array(columns), seconds)
    return SegmentFit(
        _segments(knots, float(first), [float(slope) for slope in slopes]),
        hinge.per_prefill_attention,
        hinge.per_decode_context,
    )


def _columns(work: Work, knots: Floats) -> Floats:
    """How often an iteration pays the price of one token, and tokens it has in each segment; the last is open."""
    upper = np.append(knots[1:-1], np.inf)
    return np.concatenate([[1.0], np.clip(work.tokens - knots[:-1], 0, upper - knots[:-1])])


def _other_terms(work: Work, hinge: HingeFit) -> float:
    attention = hinge.per_prefill_attention * work.prefill_attention
    context = hinge.per_decode_context * work.decode_context
    return attention + context


def _segments(knots: Floats, first: float, slopes: list[float]) -> tuple[Segment, ...]:
    segments, at_knot = [], first
    for begin, end, slope in zip(knots[:-1], knots[1:], slopes, strict=True):
        limit = None if end == knots[-1] else int(end)
        segments.append(Segment(limit, significant(at_knot - slope * begin), significant(slope)))
        at_knot += slope * (end - begin)
    return tuple(segments)


def held_out_errors(table: pd.DataFrame) -> Floats:
    """Relative errors of each row under the fit to the other rows, shape (rows, 2)."""
    errors = []
    for row in range(len(table)):
        rest = table.drop(index=table.index[row])
        errors.append(relative_errors(fit_segments(rest).seconds, table.iloc[[row]])[0])
    return np.array(errors)
