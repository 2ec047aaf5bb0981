"""Makes calibrations/rtx-6000-ada/mistral-7b.json from the SLAI micro-benchmark.

    python -m llmsim.calibrate.published.rtx_6000_ada path/to/slai_microbenchmark.csv \\
        --out calibrations/rtx-6000-ada/mistral-7b.json

The fit is `slai_segments`; this module says where each number comes from and what it is worth.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import pandas as pd

from llmsim.calibrate.fitting.fit import error_figures
from llmsim.calibrate.published.slai_microbenchmark import (
    KV_TOKEN_BYTES,
    LINEAR_FLOPS_PER_TOKEN,
    WEIGHT_BYTES,
    HingeFit,
    decode_work,
    fit_hinge,
    measured_seconds,
    predicted_seconds,
    prefill_works,
    read_microbenchmark,
    relative_errors,
)
from llmsim.calibrate.published.slai_segments import (
    Segment,
    SegmentFit,
    fit_segments,
    held_out_errors,
)
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

DERIVED_ON = "2026-11-21"
BLOCK_TOKENS = 16
KV_BLOCKS = 14733
BANDWIDTH = 960e9


def calibrate(table: pd.DataFrame) -> Calibration:
    """The calibration that the rows of the micro-benchmark give."""
    fit = fit_segments(table)
    errors = FitErrors(
        in_sample=error_figures(relative_errors(fit.seconds, table).ravel()),
        held_out=error_figures(held_out_errors(table).ravel()),
        note="Each row counts twice (TTFT and batch mean). held_out: every chunk size predicted from a fit to"
        " the others, without its knot; the worst is 256, where the curve bends most. Both say nothing about"
        " batches of many sequences, which were not measured.",
    )
    return Calibration(
        device="rtx-6000-ada",
        model="mistral-7b",
        batch_time=BatchTime(form="stratified", strata=_strata(fit, fit_hinge(table))),
        box=measured_box(table),
        errors=errors,
        host_overhead=HostOverhead(
            seconds=0.0,
            included_in_batch_times=True,
            source="TTFT and batch times of sarathi-serve run from before scheduling to after the outputs are"
            " processed: the engine's own time is in them, hence in the constants.",
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


def _strata(fit: SegmentFit, hinge: HingeFit) -> tuple[Stratum, ...]:
    """One linear model a segment, every coefficient with its source."""
    read = WEIGHT_BYTES / (hinge.floor - hinge.constant) / 1e9
    least = KV_TOKEN_BYTES / BANDWIDTH * 1e6
    most = KV_TOKEN_BYTES * hinge.floor / WEIGHT_BYTES * 1e6
    shared = (
        Coefficient(
            "per_decode_context",
            fit.per_decode_context,
            UNITS["per_decode_context"],
            "Not fitted: one decode at one context cannot show it. 128 KiB a token at the rate at which this engine"
            f" reads weights, {read:.0f} GB/s: 14.5 GB in {1e3 * (hinge.floor - hinge.constant):.2f} ms, the floor"
            f" ({1e3 * hinge.floor:.2f} ms) less the constant ({1e3 * hinge.constant:.2f} ms) of a hinge through the"
            f" same rows. Least possible at 960 GB/s: {least:.4f} us; {most:.3f} us if the constant were reading"
            " time, too.",
        ),
        Coefficient(
            "per_prefill_attention",
            fit.per_prefill_attention,
            UNITS["per_prefill_attention"],
            "Not separable: all rows have the same sum of pairs. 0.524 MFLOP a pair at the rate of the linear layers"
            f" in the same hinge, {LINEAR_FLOPS_PER_TOKEN / hinge.per_token / 1e12:.0f} TFLOP/s.",
        ),
    )
    strata, begin = [], 1
    for segment in fit.segments:
        line = tuple(
            Coefficient(name, getattr(segment, name), UNITS[name], _source(segment, begin))
            for name in ("constant", "per_token")
        )
        model = BatchTime(form="linear", coefficients=line + shared)
        strata.append(Stratum(max_tokens=segment.max_tokens, batch_time=model))
        begin = segment.max_tokens or begin
    return tuple(strata)


def _source(segment: Segment, begin: int) -> str:
    if segment.max_tokens is None:
        return f"Fitted: the line from {begin} to 1,024 tokens, and its continuation."
    return f"Fitted: the line from {begin} to {segment.max_tokens} tokens."


def _provenance(fit: SegmentFit, table: pd.DataFrame) -> Provenance:
    errors = relative_errors(fit.seconds, table)[:, 0] * 100
    rows = ", ".join(f"{chunk} {error:+.1f} %" for chunk, error in zip(table["chunk"], errors, strict=True))
    return Provenance(
        source="slai_microbenchmark.csv: Sarathi-Serve with Mistral-7B on one RTX 6000 Ada, published"
        " with the SLAI paper (agrimUT/SLAI at 5098a7a, scripts/plot1_results.csv); the card's published"
        " 960 GB/s; Mistral-7B's published configuration.",
        date=DERIVED_ON,
        command="python -m llmsim.calibrate.published.rtx_6000_ada path/to/slai_microbenchmark.csv"
        " --out calibrations/rtx-6000-ada/mistral-7b.json",
        licence="This file: Apache-2.0. Measurements quoted as facts from the repository named in source.",
        notes=(
            "Time of the linear layers: a polyline over the tokens of an iteration with a knot at 1 and at each"
            " measured chunk size, which never falls; least squares of relative errors over the actual chunks of"
            " each prompt with their past context.",
            f"Error of the TTFT by chunk size (predicted against measured): {rows}.",
            "A hinge, max(floor, constant + per_token n), misses the chunk of 384 tokens by 4.7 % and with it the"
            " kink of the measurement: 384 is slower than 256 for a prompt of 2,048 tokens.",
            "No coefficient was chosen to reach a published result.",
        ),
    )


def fit_report(table: pd.DataFrame) -> pd.DataFrame:
    """Measured and predicted milliseconds of every row, and the error in percent."""
    fit = fit_segments(table)
    report = {"chunk": table["chunk"].to_numpy()}
    predicted, measured = predicted_seconds(fit.seconds, table) * 1e3, measured_seconds(table) * 1e3
    for column, name in enumerate(("ttft", "batch")):
        report[f"{name}_ms"] = measured[:, column]
        report[f"{name}_predicted_ms"] = predicted[:, column]
        report[f"{name}_error_pct"] = (predicted[:, column] / measured[:, column] - 1) * 100
    return pd.DataFrame(report)


def main(arguments: Sequence[str] | None = None) -> None:
    """Refit, write the file, print the errors row by row."""
    parser = argparse.ArgumentParser(prog="python -m llmsim.calibrate.published.rtx_6000_ada", description=__doc__)
    parser.add_argument("csv", help="slai_microbenchmark.csv: chunk, ttft_ms, batch_ms")
    parser.add_argument("--out", required=True, help="calibration file to write")
    options = parser.parse_args(arguments)
    table = read_microbenchmark(options.csv)
    save(calibrate(table), options.out)
    print(fit_report(table).round(2).to_string(index=False))


if __name__ == "__main__":
    main()
