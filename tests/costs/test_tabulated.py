"""Prices from tables: equal to the written formula, exact along decodes, and whole through the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsim.core.batch import Work
from llmsim.costs.curves import Curve, Surface
from llmsim.costs.fields import Section
from llmsim.costs.forms import BatchTime, Coefficient, read_batch_time
from llmsim.costs.kernel_tables import KernelTables, Table
from llmsim.costs.tabulated import Tabulated
from llmsim.errors import CalibrationError

TABLES = {
    "tokens": Curve([1, 100, 1000], [0.010, 0.012, 0.040]),
    "sequences": Curve([1, 100], [0.001, 0.002]),
    "prefill_base": Curve([16, 1000], [1e-4, 1e-3]),
    "prefill_per_key": Curve([16, 1000], [1e-7, 4e-6]),
    "decode": Surface([1, 10, 100], [16, 512, 4096], [[1e-4, 2e-4, 9e-4], [2e-4, 9e-4, 6e-3], [1e-3, 8e-3, 6e-2]]),
}
ALONE = Tabulated(tables=TABLES)


def test_a_curve_is_its_points_joined_by_lines_and_goes_on_beyond():
    curve = Curve([10, 20, 40], [1.0, 3.0, 5.0])
    assert [curve.seconds(at) for at in (1, 10, 15, 20, 30, 40, 60)] == [1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0]


def test_a_curve_that_falls_at_its_end_stays_there():
    assert Curve([1, 2], [2.0, 1.0]).seconds(9) == 1.0


@pytest.mark.parametrize("at", [[], [2, 1], [1, 1], [-1, 3], [1.5, 2]])
def test_points_must_be_whole_and_rise(at):
    with pytest.raises(CalibrationError, match="whole numbers that rise"):
        Curve(at, [1.0] * len(at))


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_values_are_seconds(seconds):
    with pytest.raises(CalibrationError, match="at least 0"):
        Curve([1, 2], [1.0, seconds])


def test_a_surface_takes_its_values_at_its_points():
    surface = TABLES["decode"]
    for n, row in zip((1, 10, 100), ([1e-4, 2e-4, 9e-4], [2e-4, 9e-4, 6e-3], [1e-3, 8e-3, 6e-2]), strict=True):
        for context, seconds in zip((16, 512, 4096), row, strict=True):
            intercept, slope = surface.line(n, n * context)
            assert (intercept + slope * n * context) / 1e15 == pytest.approx(seconds, rel=1e-6)


@given(st.integers(1, 500), st.integers(1, 9000))
def test_a_batch_of_decodes_is_the_sum_of_its_tables(decodes, mean):
    work = Work(decode_tokens=decodes, decode_context=decodes * mean)
    intercept, slope = TABLES["decode"].line(decodes, decodes * mean)
    expected = (TABLES["tokens"].seconds(decodes) + TABLES["sequences"].seconds(decodes)) * 1e15
    assert ALONE.femtoseconds(work) == pytest.approx(expected + intercept + slope * decodes * mean, abs=2)


@settings(max_examples=200)
@given(st.integers(1, 300), st.integers(1, 5000), st.integers(0, 700), st.integers(0, 5000))
def test_prices_are_a_line_for_as_long_as_is_said(decodes, mean, chunk, past):
    pairs = chunk * past + chunk * (chunk + 1) // 2
    work = Work(chunk, min(chunk, 1), past, pairs, decodes, decodes * mean)
    assert ALONE.decode_slope(work) is not None
    last = min(ALONE.linear_iterations(work), 3000) - 1
    first = ALONE.femtoseconds(work)
    step = ALONE.femtoseconds(work.repeated(1)) - first
    for at in {last // 3, last // 2, last}:
        if last:
            assert ALONE.femtoseconds(work.repeated(at)) == first + at * step
    if not chunk and last:
        assert step == ALONE.decode_slope(work) * decodes


def test_beyond_the_last_context_the_line_never_ends():
    far = Work(decode_tokens=10, decode_context=10 * 5000)
    assert ALONE.linear_iterations(far) > 10**9
    assert ALONE.linear_iterations(Work(decode_tokens=10, decode_context=10 * 500)) == 13  # to a mean of 512


def test_prompts_pay_for_their_mean_keys_and_decodes_beside_them_another_table():
    dear = Surface([1, 100], [16, 4096], [[1.0, 1.0], [1.0, 1.0]])
    model = Tabulated(tables=TABLES | {"decode_mixed": dear}, mixed_pair=1e-9)
    prompt = Work(prefill_tokens=1000, prefill_seqs=2, prefill_attention=250_000)
    assert model.seconds(prompt) == pytest.approx(0.040 + TABLES["sequences"].seconds(2) + 1e-3 + 4e-6 * 250)
    both = Work(prefill_tokens=990, prefill_seqs=2, prefill_attention=990 * 250, decode_tokens=10, decode_context=5120)
    line = TABLES["prefill_base"].seconds(990) + TABLES["prefill_per_key"].seconds(990) * 250
    expected = 0.040 + TABLES["sequences"].seconds(12) + line + 1.0 + 1e-9 * 495 * 12
    assert model.seconds(both) == pytest.approx(expected)


def test_small_batches_run_at_the_size_they_are_padded_to_and_pay_the_gaps_of_a_graph():
    model = Tabulated(tables={"tokens": TABLES["tokens"]}, padding=[8, 100], graph_gaps=1e-3, launch_gaps=2e-3)
    small, next_size, large = (model.seconds(Work(decode_tokens=n, decode_context=n)) for n in (9, 100, 101))
    assert small == next_size == pytest.approx(0.013)
    assert large == pytest.approx(TABLES["tokens"].seconds(101) + 2e-3)


def test_a_batch_waits_for_its_longest_sequence():
    model = Tabulated(tables=TABLES | {"decode_tail": Curve([1], [1e-6])}, waves=(10.0, 10.0))
    equal = Work(decode_tokens=10, decode_context=10_000, decode_longest=1000)
    uneven = Work(decode_tokens=10, decode_context=10_000, decode_longest=3000)
    unknown = Work(decode_tokens=10, decode_context=10_000)
    assert model.seconds(equal) == model.seconds(unknown) == ALONE.seconds(equal)
    assert model.seconds(uneven) - model.seconds(equal) == pytest.approx(2000e-6)  # one wave: it starts with the others
    assert model.decode_slope(uneven) is None  # the mean grows, and with it what has been read of the longest


def test_of_several_waves_the_longest_may_start_in_any():
    model = Tabulated(tables=TABLES | {"decode_tail": Curve([1], [1e-6])}, waves=(10.0, 10.0))
    uneven = Work(decode_tokens=30, decode_context=30_000, decode_longest=2500)
    extra = model.seconds(uneven) - ALONE.seconds(uneven)
    steps = 10_000
    mean = sum(max(0.0, 1500 - 1000 * 2 * (i + 0.5) / steps) for i in range(steps)) / steps
    assert extra == pytest.approx(mean * 1e-6, rel=1e-3)


def held() -> BatchTime:
    tables = (
        Table(name="tokens", at=(1, 100), values=(0.01, 0.02), source="a test"),
        Table(name="decode", at=(1, 10), context=(16, 99), values=((1e-4, 2e-4), (3e-4, 4e-4)), source="a test"),
    )
    kernels = KernelTables(tables=tables, padding=(1, 8), decodes_per_wave=(47.0, 11.75))
    return BatchTime(form="tabulated", coefficients=(Coefficient("graph_gaps", 1e-4, "s", "a test"),), kernels=kernels)


def test_what_is_written_is_read_again_and_costs_the_same():
    written = held().to_json()
    again = read_batch_time(Section(Path("x.json"), "batch_time", json.loads(json.dumps(written))))
    assert again == held()
    work = Work(decode_tokens=5, decode_context=300)
    assert again.cost_model(1e-3).femtoseconds(work) == held().cost_model(1e-3).femtoseconds(work)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda held: held["tables"].pop("tokens"), "tokens is missing"),
        (lambda held: held["tables"]["tokens"].update(unit="us"), "must be 's'"),
        (lambda held: held["tables"]["tokens"].update(at=[100, 1]), "rise"),
        (lambda held: held["tables"]["tokens"].update(values=[1, "x"]), "finite numbers only"),
        (lambda held: held["tables"]["decode"].update(values=[[1, 2]]), "as many values"),
        (lambda held: held["tables"].update(decodes=held["tables"]["decode"]), "Did you mean 'decode'"),
        (lambda held: held.update(padding=[8, 1]), "rise"),
        (lambda held: held.update(decodes_per_wave=[1]), "two numbers"),
    ],
)
def test_a_file_that_is_wrong_is_named(change, message):
    wrong = json.loads(json.dumps(held().to_json()))
    change(wrong)
    with pytest.raises(CalibrationError, match=message):
        read_batch_time(Section(Path("x.json"), "batch_time", wrong))


@pytest.mark.parametrize("calibration", ["h100/llama-3.1-8b", "rtx-pro-6000/llama-3.1-8b"])
@pytest.mark.parametrize("scheduler", ["vllm_v1,max_num_batched_tokens=2048,max_num_seqs=64", "sarathi,chunk_size=256"])
def test_macro_steps_equal_single_steps_on_shipped_tables(calibration, scheduler):
    from llmsim import load_runs, simulate

    def tables(step_by_step: bool):
        workload = {"trace": "sharegpt4", "num_requests": 150, "arrivals": {"kind": "poisson", "rate": 6.0}}
        mapping = {"calibration": calibration, "scheduler": scheduler, "workload": workload}
        (spec,) = load_runs(mapping=mapping | {"step_by_step": step_by_step})
        return simulate(spec).requests

    assert tables(True).equals(tables(False))
