"""The straight lines under a tabulated batch time: no batch is cheaper, and the bound they make is not idle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsim.core.batch import Work
from llmsim.costs.calibration import list_calibrations, load_calibration
from llmsim.theory.fluid import fluid_capacity
from llmsim.theory.fluid_tables import floor_of, lower_hull

TABULATED = [name for name in list_calibrations() if load_calibration(name).batch_time.form == "tabulated"]


@given(st.lists(st.floats(0, 100), min_size=2, max_size=12))
def test_a_lower_hull_lies_below_its_points_and_rises(values):
    x, values = range(1, len(values) + 1), sorted(values)
    lines = lower_hull(x, values)
    for at, value in zip(x, values, strict=True):
        assert max(start + slope * at for start, slope in lines) <= value + 1e-9
    assert max(start + slope for start, slope in lines) == pytest.approx(values[0])
    assert all(slope >= 0 for _, slope in lines)


@pytest.mark.parametrize("name", TABULATED[:: max(1, len(TABULATED) // 8)])
@settings(max_examples=60, deadline=None)
@given(
    prefill=st.integers(0, 20_000), chunks=st.integers(1, 20), past=st.integers(0, 30_000),
    decodes=st.integers(0, 2000), mean=st.integers(1, 40_000), longest=st.floats(1, 8),
)  # fmt: skip
def test_no_batch_is_cheaper_than_its_lines(name, prefill, chunks, past, decodes, mean, longest):
    if not prefill + decodes:
        return
    calibration = load_calibration(name)
    gaps = min(calibration.batch_time.value("graph_gaps"), calibration.batch_time.value("launch_gaps"))
    floor = floor_of(calibration.batch_time.kernels, gaps)
    chunks = min(chunks, prefill) if prefill else 0
    pairs = prefill * past + prefill * (prefill + 1) // (2 * max(chunks, 1))
    work = Work(prefill, chunks, prefill * past, pairs, decodes, decodes * mean, int(mean * longest))
    tokens = prefill + decodes
    least = max(start + slope * tokens for start, slope in floor.lines)
    least += floor.per_decode_context * decodes * mean + floor.per_pair * pairs
    assert calibration.cost_model().seconds(work) >= least


@pytest.mark.parametrize("name", TABULATED)
def test_every_shipped_calibration_has_a_bound(name):
    bound = fluid_capacity(load_calibration(name), np.array([1000]), np.array([200]))
    assert 0.05 < bound.rps < 500
