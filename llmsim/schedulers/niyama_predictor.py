"""The batch-time regression that Niyama plans its chunks with, as published (72339db, deadline_scheduler.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmsim.core.batch import Work

STRATA = {
    512: (0.014936, 8.130431e-5, 9.516994e-5, 1.111258e-7, 7.554773e-7),
    None: (0.005004, 9.582093e-5, -1.424943e-5, 1.663409e-7, 2.727223e-6),
}
"""The published predictor (A100, Llama-3-8B) by tokens of the batch: seconds constant, per prompt token, per
decode, per decode-context token, per prefill-context token; the collinear token columns are added up."""


def published_predictor(work: Work) -> float:
    """Seconds of a batch by Niyama's own regression."""
    constant, prefill, decode, decode_context, prefill_context = STRATA[512 if work.tokens <= 512 else None]
    return (
        constant
        + prefill * work.prefill_tokens
        + decode * work.decode_tokens
        + decode_context * work.decode_context
        + prefill_context * work.prefill_context
    )
