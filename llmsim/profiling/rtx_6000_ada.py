"""Makes calibrations/rtx-6000-ada/mistral-7b.json from the SLAI micro-benchmark.

    python -m llmsim.profiling.rtx_6000_ada path/to/slai_microbenchmark.csv \\
        --out calibrations/rtx-6000-ada/mistral-7b.json

The fit is `slai_microbenchmark`; this module says where each number comes from and what it is worth.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import pandas as pd

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
from llmsim.costs.forms import UNITS, BatchTime, Coefficient
from llmsim.profiling.fit import error_figures
from llmsim.profiling.slai_microbenchmark import (
    KV_TOKEN_BYTES,
    LINEAR_FLOPS_PER_TOKEN,
    WEIGHT_BYTES,
    HingeFit,
    decode_work,
    fit_hinge,
    held_out_errors,
    measured_seconds,
    predicted_seconds,
    prefill_works,
    read_microbenchmark,
    relative_errors,
)

DERIVED_ON = "2026-11-20"
BLOCK_TOKENS = 16
KV_BLOCKS = 14733
BANDWIDTH = 960e9


def calibrate(table: pd.DataFrame) -> Calibration:
    """The calibration that the rows of the micro-benchmark give."""
    fit = fit_hinge(table)
    errors = FitErrors(
        in_sample=error_figures(relative_errors(fit, table).ravel()),
        held_out=error_figures(held_out_errors(table).ravel()),
        note="Each row counts twice (TTFT and batch mean). held_out: every chunk size predicted from a fit to"
        " the others. Both say nothing about batches of many sequences, which were not measured.",
    )
    return Calibration(
        device="rtx-6000-ada",
        model="mistral-7b",
        batch_time=BatchTime(form="hinge", coefficients=_coefficients(fit)),
        box=measured_box(table),
        errors=errors,
        host_overhead=HostOverhead(
            seconds=0.0,
            included_in_batch_times=True,
            source="TTFT and batch times of sarathi-serve run from before scheduling to after the outputs are"
            " processed: the engine's own time is in them, hence in floor and constant.",
        ),
        kv=KvMemory(
            block_size=BLOCK_TOKENS,
            num_blocks=KV_BLOCKS,
            block_bytes=BLOCK_TOKENS * KV_TOKEN_BYTES,
            source="Published by the study for this card and model at 0.9 of its memory: 14,733 blocks of 16"
            " tokens, 128 KiB a token (32 layers x 8 KV heads x 128 x K and V x 2 bytes); 28.8 GiB.",
        ),
        limit=LengthLimit(
            max_model_len=8192,
            native_max_model_len=32768,
            source="8192 is the study's max_model_len; the model's configuration has 32768 positions.",
        ),
        provenance=_provenance(fit, table),
    )


def measured_box(table: pd.DataFrame) -> Box:
    """The sums of the iterations that were run: one sequence, prefill chunks and one decode."""
    works = [work for chunk in table["chunk"] for work in prefill_works(int(chunk))]
    ranges = [Range("tokens", 1, max(work.tokens for work in works)), Range("sequences", 1, 1)]
    for name in ("prefill_tokens", "prefill_seqs", "prefill_context", "prefill_attention"):
        values = [getattr(work, name) for work in works]
        ranges.append(Range(name, min(value for value in values if value), max(values)))
    decode = decode_work()
    ranges += [
        Range(name, getattr(decode, name), getattr(decode, name))
        for name in ("decode_tokens", "decode_context")
    ]
    return Box(
        ranges=tuple(ranges),
        source="Batches of one request: prompts of 2,048 tokens in chunks of 64 to 1,024, then one decode."
        " Batches of several sequences, and prefill mixed with decodes, are extrapolation.",
    )


def _coefficients(fit: HingeFit) -> tuple[Coefficient, ...]:
    """Every coefficient with its source."""
    rate = LINEAR_FLOPS_PER_TOKEN / fit.per_token / 1e12
    read = WEIGHT_BYTES / (fit.floor - fit.constant) / 1e9
    least = KV_TOKEN_BYTES / BANDWIDTH * 1e6
    most = KV_TOKEN_BYTES * fit.floor / WEIGHT_BYTES * 1e6
    sources = {
        "floor": f"Fitted; chunks of up to {fit.floor_chunk} tokens and the decode lie on it. Reading"
        f" 14.5 GB of weights at the card's 960 GB/s takes {WEIGHT_BYTES / BANDWIDTH * 1e3:.1f} ms; the"
        " rest is lost bandwidth, launches and the engine's host time.",
        "constant": "Fitted; where the line through the chunks above the floor meets zero tokens.",
        "per_token": f"Fitted together with per_prefill_attention; {LINEAR_FLOPS_PER_TOKEN / 1e9:.2f} GFLOP a"
        f" token at {rate:.0f} TFLOP/s.",
        "per_decode_context": "Not fitted: one decode at one context cannot show it. 128 KiB a token at"
        f" the rate at which this engine reads weights, 14.5 GB / (floor - constant) = {read:.0f} GB/s. Least"
        f" possible at 960 GB/s: {least:.4f} us; {most:.3f} us if the constant were reading time, too.",
        "per_prefill_attention": "Not separable: all rows have the same sum of pairs. 0.524 MFLOP a pair"
        " at the rate of the linear layers, fitted as one column with per_token.",
    }
    return tuple(
        Coefficient(name, getattr(fit, name), UNITS[name], source) for name, source in sources.items()
    )


def _provenance(fit: HingeFit, table: pd.DataFrame) -> Provenance:
    errors = relative_errors(fit, table)[:, 0] * 100
    rows = ", ".join(f"{chunk} {error:+.1f} %" for chunk, error in zip(table["chunk"], errors, strict=True))
    knee = (fit.floor - fit.constant) / fit.per_token
    return Provenance(
        source="slai_microbenchmark.csv: Sarathi-Serve with Mistral-7B on one RTX 6000 Ada, published"
        " with the SLAI paper (agrimUT/SLAI at 5098a7a, scripts/plot1_results.csv); the card's published"
        " 960 GB/s; Mistral-7B's published configuration.",
        date=DERIVED_ON,
        command="python -m llmsim.profiling.rtx_6000_ada path/to/slai_microbenchmark.csv"
        " --out calibrations/rtx-6000-ada/mistral-7b.json",
        licence="This file: Apache-2.0. Measurements quoted as facts from the repository named in source.",
        notes=(
            "Least squares of relative errors, coefficients not negative, over the actual chunks of each"
            " prompt with their past context; which chunks lie on the floor is chosen by the least error.",
            f"Error of the TTFT by chunk size (predicted against measured): {rows}.",
            f"Floor and slope meet at {knee:.0f} tokens; the measured knee is softer. No term for GEMM tiles:"
            " seven rows cannot carry one.",
            "No coefficient was chosen to reach a published result. An earlier, untuned prototype used"
            " max(22.5 ms, 6.3 ms + 92.3 us/token) + 0.16 us per context token.",
        ),
    )


def fit_report(table: pd.DataFrame) -> pd.DataFrame:
    """Measured and predicted milliseconds of every row, and the error in percent."""
    fit = fit_hinge(table)
    report = {"chunk": table["chunk"].to_numpy()}
    predicted, measured = predicted_seconds(fit, table) * 1e3, measured_seconds(table) * 1e3
    for column, name in enumerate(("ttft", "batch")):
        report[f"{name}_ms"] = measured[:, column]
        report[f"{name}_predicted_ms"] = predicted[:, column]
        report[f"{name}_error_pct"] = (predicted[:, column] / measured[:, column] - 1) * 100
    return pd.DataFrame(report)


def main(arguments: Sequence[str] | None = None) -> None:
    """Refit, write the file, print the errors row by row."""
    parser = argparse.ArgumentParser(prog="python -m llmsim.profiling.rtx_6000_ada", description=__doc__)
    parser.add_argument("csv", help="slai_microbenchmark.csv: chunk, ttft_ms, batch_ms")
    parser.add_argument("--out", required=True, help="calibration file to write")
    options = parser.parse_args(arguments)
    table = read_microbenchmark(options.csv)
    save(calibrate(table), options.out)
    print(fit_report(table).round(2).to_string(index=False))


if __name__ == "__main__":
    main()
