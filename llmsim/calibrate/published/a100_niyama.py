"""Makes calibrations/a100/llama-3-8b.json from Niyama's published batch-time predictor.

    python -m llmsim.calibrate.published.a100_niyama --out calibrations/a100/llama-3-8b.json

The predictor is two ordinary least-squares models, one per range of total tokens. Its three token features
are collinear (total = prefill + decode), so only the sums total + prefill and total + decode mean anything;
these are the coefficients here. The data behind it was not published, hence no errors and no refit.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from decimal import Decimal

from llmsim.costs.box import Box, Range
from llmsim.costs.calibration import (
    Calibration,
    FitErrors,
    HostOverhead,
    KvMemory,
    LengthLimit,
    Provenance,
    save,
)
from llmsim.costs.forms import UNITS, BatchTime, Coefficient, Stratum

DERIVED_ON = "2026-11-20"

# As printed in the source, in seconds; strings, so that sums are the decimal ones.
PREDICTOR: dict[int | None, dict[str, str]] = {
    512: {
        "intercept": "0.014936",
        "total": "5.882475e-05",
        "prefill": "2.247956e-05",
        "decode": "3.634519e-05",
        "decode_context": "1.111258e-07",
        "prefill_context": "7.554773e-07",
    },
    None: {
        "intercept": "0.005004",
        "total": "2.719050e-05",
        "prefill": "6.863043e-05",
        "decode": "-4.143993e-05",
        "decode_context": "1.663409e-07",
        "prefill_context": "2.727223e-06",
    },
}

MAX_TOKENS = 2552
MAX_DECODES = 256

# KV arithmetic, in bytes unless said.
MEMORY = 80 * 10**9
UTILISATION = Decimal("0.9")
PARAMETERS = 8_030_000_000
WEIGHT_BYTES = 2 * PARAMETERS
HIDDEN, MLP_WIDTH, VOCABULARY, SAMPLED = 4096, 14336, 128256, 128
BLOCK_TOKENS = 16
KV_TOKEN_BYTES = 2 * 32 * 8 * 128 * 2


def activation_peak_bytes() -> int:
    """Estimate: residual, input, gate, up and their product of the largest batch; fp32 and bf16 logits."""
    per_token = 2 * (2 * HIDDEN + 2 * MLP_WIDTH + MLP_WIDTH)
    return MAX_TOKENS * per_token + SAMPLED * VOCABULARY * (4 + 2)


def kv_blocks() -> int:
    """Blocks in what the engine may use of the card, less weights and activations."""
    free = int(MEMORY * UTILISATION) - WEIGHT_BYTES - activation_peak_bytes()
    return free // (BLOCK_TOKENS * KV_TOKEN_BYTES)


def calibrate() -> Calibration:
    """The calibration that the published coefficients give."""
    strata = tuple(
        Stratum(max_tokens=limit, batch_time=BatchTime(form="linear", coefficients=_coefficients(row)))
        for limit, row in PREDICTOR.items()
    )
    return Calibration(
        device="a100",
        model="llama-3-8b",
        batch_time=BatchTime(form="stratified", strata=strata),
        box=_box(),
        errors=FitErrors(
            in_sample=None,
            held_out=None,
            note="Not published, and the training data is not public: no error can be given.",
        ),
        host_overhead=HostOverhead(
            seconds=0.0,
            included_in_batch_times=True,
            source="The target of the regression is sarathi-serve's batch_execution_time, which its"
            " engine takes from before scheduling to after the outputs are processed. Of the 14.9 ms"
            " intercept, reading 16.06 GB of weights at 2,039 GB/s explains 7.9 ms.",
        ),
        kv=_kv(),
        limit=LengthLimit(
            max_model_len=260000,
            native_max_model_len=8192,
            source="260000 is the study's max_model_len; it ran random weights, so lengths beyond the"
            " 8192 that Llama-3-8B was trained for cost time like any other and need no meaning. It is"
            " kept so that the study's Azure traces run, whose prompts reach 14,050 tokens; for a server"
            " of the real model set 8192.",
        ),
        provenance=_provenance(),
    )


def _coefficients(row: dict[str, str]) -> tuple[Coefficient, ...]:
    """The effective coefficients of one regime, with how they follow from the published ones."""
    total, prefill, decode = (Decimal(row[name]) for name in ("total", "prefill", "decode"))
    falls = (
        "; negative: a by-product of the regression, harmless within the box" if total + decode < 0 else ""
    )
    numbers = {
        "constant": (Decimal(row["intercept"]), "Intercept, as published."),
        "per_prefill_token": (
            total + prefill,
            f"total {row['total']} + prefill {row['prefill']}, as published.",
        ),
        "per_decode_token": (
            total + decode,
            f"total {row['total']} + decode {row['decode']}, as published{falls}.",
        ),
        "per_decode_context": (Decimal(row["decode_context"]), "As published."),
        "per_prefill_context": (
            Decimal(row["prefill_context"]),
            "As published: per token already processed of the prompts in the batch. There is no term in"
            " chunk x context.",
        ),
    }
    return tuple(
        Coefficient(name, float(value), UNITS[name], source) for name, (value, source) in numbers.items()
    )


def _box() -> Box:
    return Box(
        ranges=(
            Range("tokens", 1, MAX_TOKENS),
            Range("prefill_tokens", 1, MAX_TOKENS),
            Range("decode_tokens", 1, MAX_DECODES),
        ),
        source="The training ranges were not published. These are the ranges in which the study itself"
        " relies on the predictor: candidates of up to 2,552 tokens, at most 256 decodes (its chunk_size"
        " caps them). Contexts are unbounded for lack of a figure. With more than 491 decodes in a batch"
        " of over 512 tokens the price could fall to zero.",
    )


def _kv() -> KvMemory:
    return KvMemory(
        block_size=BLOCK_TOKENS,
        num_blocks=kv_blocks(),
        block_bytes=BLOCK_TOKENS * KV_TOKEN_BYTES,
        source=f"Derived, not measured: (80e9 x 0.9 - 8.03e9 x 2 - {activation_peak_bytes()}) / 2097152"
        " bytes. 0.9 is the study's memory share. Estimated: the activation peak (2,552 tokens x 51,200 bf16"
        " values, and logits of 128 sequences), and that the 80 GiB card gives no more than 80e9 bytes"
        " once CUDA's own memory is paid; with 85e9 it would be about 2,100 blocks more. The study's traces"
        " of decisions were driven with 27,000.",
    )


def _provenance() -> Provenance:
    return Provenance(
        source="microsoft/sarathi-serve, branch niyama_asplos2026 at 72339db: coefficients in"
        " sarathi/core/scheduler/deadline_scheduler.py, trained by chunk_size_predictor/predictor.py"
        " (ordinary least squares on batches of up to 1 s; A100, Llama-3-8B, one GPU).",
        date=DERIVED_ON,
        command="python -m llmsim.calibrate.published.a100_niyama --out calibrations/a100/llama-3-8b.json",
        licence="This file: Apache-2.0. Coefficients quoted as facts from the repository named in source.",
        notes=(
            "Exactly 512 tokens belong to the first regime, 513 to the second, as the scheduler evaluates"
            " them (the training left a row of 513 out of both).",
            "The regimes do not meet: at 512 to 513 prompt tokens the price falls from 56.6 to 54.2 ms"
            " without contexts. A batch with decodes falls further.",
        ),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(prog="python -m llmsim.calibrate.published.a100_niyama", description=__doc__)
    parser.add_argument("--out", required=True, help="calibration file to write")
    save(calibrate(), parser.parse_args(arguments).out)


if __name__ == "__main__":
    main()
