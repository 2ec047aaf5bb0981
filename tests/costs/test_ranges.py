"""Batches outside the measured box are counted after the run, or refused during it: never passed over."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from llmsim.core.batch import Work
from llmsim.costs.box import QUANTITIES, Box, Range, StrictRange
from llmsim.costs.linear import Linear
from llmsim.costs.ranges import check_ranges, outside_box
from llmsim.errors import CalibrationError

BOX = Box(
    ranges=(Range("tokens", 1, 600), Range("prefill_tokens", 64, 512), Range("decode_tokens", 1, 256)),
    source="test",
)
MODEL = Linear(constant=0.01, per_decode_context=1e-7)


def iterations() -> pd.DataFrame:
    """Four iterations: inside, too many decodes, a short chunk, and two ranges left at once."""
    table = pd.DataFrame(
        {
            "replica": [0, 0, 1, 1],
            "iteration": [0, 1, 0, 1],
            "start_ns": [0, 10, 0, 40],
            "end_ns": [10, 40, 40, 60],
            "prefill_tokens": [512, 0, 32, 512],
            "decode_tokens": [0, 300, 10, 400],
        }
    )
    sums = ("prefill_seqs", "prefill_context", "prefill_attention", "decode_context")
    return table.assign(**dict.fromkeys(sums, 0))


def test_violations_say_how_many_how_long_and_how_far() -> None:
    found = {(item.quantity, item.side): item for item in check_ranges(BOX, iterations())}
    assert list(found) == [("tokens", "above"), ("prefill_tokens", "below"), ("decode_tokens", "above")]
    decodes = found["decode_tokens", "above"]
    assert (decodes.iterations, decodes.share_of_iterations, decodes.share_of_time) == (2, 0.5, 0.5)
    assert (decodes.worst, decodes.replica, decodes.iteration) == (400, 0, 1)
    chunk = found["prefill_tokens", "below"]
    assert (chunk.worst, chunk.replica, chunk.iteration, chunk.share_of_time) == (32, 1, 0, 0.4)
    assert str(decodes) == (
        "decode_tokens above the profiled range 1-256 in 2 iterations (50.0%, 50.0% of busy time);"
        " worst 400, first at iteration 1 of replica 0"
    )


def test_a_violation_is_plain_json() -> None:
    held = [item.as_dict() for item in check_ranges(BOX, iterations())]
    assert json.loads(json.dumps(held)) == held


def test_what_a_batch_does_not_have_is_not_outside() -> None:
    assert outside_box(BOX, iterations()).tolist() == [False, True, True, True]
    assert not list(BOX.outside(Work(prefill_tokens=512)))


def test_an_empty_run_and_an_empty_box_violate_nothing() -> None:
    assert check_ranges(BOX, iterations().iloc[:0]) == []
    assert outside_box(BOX, iterations().iloc[:0]).tolist() == []
    empty = Box(ranges=(), source="none")
    assert check_ranges(empty, iterations()) == []
    assert empty.unbounded == QUANTITIES


def test_both_modes_agree_on_what_is_outside() -> None:
    box = Box(ranges=tuple(Range(name, 2, 40) for name in QUANTITIES), source="test")
    numbers = [
        (0, 0, 0, 0, 3, 30),
        (2, 2, 2, 2, 0, 0),
        (39, 2, 0, 9, 2, 9),
        (2, 1, 9, 9, 9, 9),
        (9, 9, 9, 9, 1, 1),
    ]
    names = (
        "prefill_tokens",
        "prefill_seqs",
        "prefill_context",
        "prefill_attention",
        "decode_tokens",
        "decode_context",
    )
    table = pd.DataFrame(numbers, columns=list(names)).assign(replica=0, iteration=0, start_ns=0, end_ns=1)
    strict = [any(True for _ in box.outside(Work(*row))) for row in numbers]
    assert outside_box(box, table).tolist() == strict == [False, False, True, True, True]


def test_strict_range_refuses_the_first_batch_outside() -> None:
    strict = StrictRange(MODEL, BOX, "h200/llama-3-8b")
    inside = Work(decode_tokens=256, decode_context=1000)
    assert strict.femtoseconds(inside) == MODEL.femtoseconds(inside)
    assert strict.seconds(inside) == MODEL.seconds(inside)
    message = (
        "decode_tokens=512 is outside the profiled range 1-256 for h200/llama-3-8b;"
        " re-run `llmsim profile` with cases that reach 512, or drop --strict-range"
    )
    for price in (strict.femtoseconds, strict.seconds):
        with pytest.raises(CalibrationError) as error:
            price(Work(decode_tokens=512))
        assert str(error.value) == message


def test_strict_range_checks_each_repetition_of_a_batch() -> None:
    assert StrictRange(MODEL, BOX).decode_slope(Work(decode_tokens=1)) is None


def test_ranges_are_checked_when_made() -> None:
    with pytest.raises(CalibrationError, match="Did you mean 'decode_tokens'"):
        Range("decode_token", 1, 2)
    with pytest.raises(CalibrationError, match="0 <= min <= max"):
        Range("tokens", 3, 2)
