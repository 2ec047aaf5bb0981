"""What is wrong with a calibration's prices is said: refused where there is none, shown where they fall or jump."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmsim.costs.box import Box, Range
from llmsim.costs.calibration import load_calibration, read_calibration
from llmsim.costs.calibration_text import calibration_text
from llmsim.costs.linear import Linear
from llmsim.costs.price_steps import Step, steps
from llmsim.costs.stratified import Stratified
from llmsim.errors import CalibrationError

BOX = Box(ranges=(Range("prefill_tokens", 1, 1000), Range("decode_tokens", 1, 64)), source="a test")


@pytest.mark.parametrize(
    ("factor", "message"), [(0.0, "not positive over the box"), (1e300, "values of a table are seconds|not finite")]
)
def test_a_file_whose_batches_cost_nothing_or_more_than_can_be_counted_is_refused(factor, message, tmp_path: Path):
    source = Path(__file__).parents[2] / "calibrations/h100/llama-3.1-8b.json"
    held = json.loads(source.read_text(encoding="utf-8"))
    for table in held["batch_time"]["tables"].values():
        rows = table["values"]
        table["values"] = [[v * factor for v in row] if isinstance(row, list) else row * factor for row in rows]
    held["batch_time"]["coefficients"] = {}
    path = tmp_path / "h100.json"
    path.write_text(json.dumps(held), encoding="utf-8")
    with pytest.raises(CalibrationError, match=message) as error:
        read_calibration(path)
    assert str(path) in str(error.value)


def test_the_worst_fall_and_the_worst_jump_are_found():
    model = Stratified([(100, Linear(constant=1.0)), (500, Linear(constant=2.0)), (None, Linear(constant=1.9))])
    assert steps(model, BOX) == [
        Step("prompt token", 500, pytest.approx(-0.05)),
        Step("prompt token", 100, pytest.approx(1.0)),
    ]
    assert steps(Linear(constant=1.0, per_token=1e-3), BOX) == []


def test_show_says_them():
    stepped = calibration_text(load_calibration("a100/llama-3-8b"))
    assert "a fall of 4.25%: one more prompt token, from 512 on" in stepped
    padded = calibration_text(load_calibration("rtx-4090/llama-3.1-8b"))
    assert "one more prompt token, from 256 on (to the next size of a CUDA graph)" in padded
