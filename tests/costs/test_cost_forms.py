"""Prices are exact: ints, equal to the written formula, and linear in the decode context bit for bit."""

from __future__ import annotations

import gzip
import json
import os
import pickle
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsim.core.batch import Work
from llmsim.costs.base import CostModel
from llmsim.costs.linear import Hinge, Linear
from llmsim.costs.stratified import Stratified, Tiled
from llmsim.errors import CalibrationError
from llmsim.units import FS_PER_SECOND

SHARED = Path(os.environ.get("LLMSIM_SHARED", Path(__file__).parents[3] / "shared"))
CONTEXTS = {"per_decode_context": 1.7e-7, "per_prefill_attention": 3.3e-9, "per_prefill_context": 7e-7}
MODELS: list[CostModel] = [
    Linear(constant=0.012, per_token=8e-5, per_prefill_token=2e-6, per_decode_token=-3e-6, **CONTEXTS),
    Hinge(floor=0.0222, constant=0.0135, per_token=5.98e-5, per_sequence=1e-5, **CONTEXTS),
    Tiled(tile_tokens=128, per_tile=6e-3, constant=4e-3, per_token=1e-6, **CONTEXTS),
    Stratified(
        [(512, Linear(constant=0.015, per_token=8e-5)), (None, Linear(constant=5e-3, per_token=1e-4))]
    ),
]
SECONDS = st.floats(min_value=0, max_value=1, allow_nan=False)


def fs(seconds: float) -> int:
    """A coefficient in whole femtoseconds."""
    return round(seconds * FS_PER_SECOND)


def works() -> st.SearchStrategy[Work]:
    """Any batch with at least one token."""
    prefill = st.tuples(
        st.integers(1, 9000), st.integers(1, 40), st.integers(0, 10**6), st.integers(1, 10**9)
    )
    decode = st.tuples(st.integers(0, 600), st.integers(0, 10**7))
    mixed = st.builds(lambda p, d: Work(*p, *(d if d[0] else (0, 0))), prefill, decode)
    return mixed | st.builds(lambda n, c: Work(0, 0, 0, 0, n, c), st.integers(1, 600), st.integers(1, 10**7))


@given(st.tuples(*[SECONDS] * 8), works())
def test_linear_is_the_sum_of_its_terms(numbers: tuple[float, ...], work: Work) -> None:
    constant, token, prefill, decode, context, attention, past, sequence = numbers
    model = Linear(
        constant=constant + 1e-6,
        per_token=token,
        per_prefill_token=prefill,
        per_decode_token=decode,
        per_decode_context=context,
        per_prefill_attention=attention,
        per_prefill_context=past,
        per_sequence=sequence,
    )
    assert model.femtoseconds(work) == (
        fs(constant + 1e-6)
        + fs(token) * work.tokens
        + fs(prefill) * work.prefill_tokens
        + fs(decode) * work.decode_tokens
        + fs(context) * work.decode_context
        + fs(attention) * work.prefill_attention
        + fs(past) * work.prefill_context
        + fs(sequence) * work.sequences
    )


@given(st.tuples(*[SECONDS] * 7), works())
def test_hinge_is_the_greater_of_floor_and_line_plus_contexts(numbers: tuple[float, ...], work: Work) -> None:
    floor, constant, token, sequence, context, attention, past = numbers
    model = Hinge(
        floor=floor + 1e-6,
        constant=constant,
        per_token=token,
        per_sequence=sequence,
        per_decode_context=context,
        per_prefill_attention=attention,
        per_prefill_context=past,
    )
    line = fs(constant) + fs(token) * work.tokens + fs(sequence) * work.sequences
    contexts = fs(attention) * work.prefill_attention + fs(past) * work.prefill_context
    expected = max(fs(floor + 1e-6), line) + contexts + fs(context) * work.decode_context
    assert model.femtoseconds(work) == expected


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
@given(decodes=st.integers(1, 700), context=st.integers(1, 10**7), iterations=st.integers(1, 200))
@settings(max_examples=30)
def test_a_run_of_decodes_costs_its_closed_form(
    model: CostModel, decodes: int, context: int, iterations: int
) -> None:
    works = [Work(decode_tokens=decodes, decode_context=context + i * decodes) for i in range(iterations)]
    slope = model.decode_slope(works[0])
    assert slope is not None
    steps = iterations * (iterations - 1) // 2
    closed = iterations * model.femtoseconds(works[0]) + slope * decodes * steps
    assert sum(model.femtoseconds(work) for work in works) == closed


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
@given(chunk=st.integers(0, 2000), past=st.integers(0, 10**5), decodes=st.integers(0, 700), nth=st.integers(0, 50))
@settings(max_examples=50)
def test_every_repetition_is_dearer_by_the_growth(
    model: CostModel, chunk: int, past: int, decodes: int, nth: int
) -> None:
    pairs = chunk * past + chunk * (chunk + 1) // 2
    work = Work(chunk, 1, past, pairs, decodes, decodes * 900) if chunk else Work(decode_tokens=decodes + 1)
    assert model.growth(work) == model.femtoseconds(work.repeated(nth + 1)) - model.femtoseconds(work.repeated(nth))


def test_a_model_derived_from_another_does_not_inherit_its_growth() -> None:
    class Dearer(Linear):
        def femtoseconds(self, work: Work) -> int:
            return 3 * super().femtoseconds(work)

        def decode_slope(self, work: Work) -> int:
            return 3 * super().decode_slope(work)

    work = Work(100, 1, 200, 25_050, 10, 900)
    model = Dearer(constant=1e-3, per_decode_context=1e-7, per_prefill_attention=1e-10)
    assert model.growth(work) == model.femtoseconds(work.repeated(1)) - model.femtoseconds(work) > 0


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_prices_are_ints_and_seconds_are_their_quotient(model: CostModel) -> None:
    work = Work(300, 2, 4000, 700_000, 100, 90_000)
    price = model.femtoseconds(work)
    assert type(price) is int
    assert model.seconds(work) == price / FS_PER_SECOND


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_a_model_survives_pickling_and_shows_itself(model: CostModel) -> None:
    work = Work(300, 2, 4000, 700_000, 100, 90_000)
    assert pickle.loads(pickle.dumps(model)).femtoseconds(work) == model.femtoseconds(work)
    assert repr(model).startswith(type(model).__name__ + "(")


def test_the_hinge_leaves_its_floor_where_the_line_crosses_it() -> None:
    model = Hinge(floor=0.020, constant=0.010, per_token=1e-4)
    prices = [model.femtoseconds(Work(prefill_tokens=n, prefill_seqs=1)) for n in (99, 100, 101)]
    assert prices == [fs(0.020), fs(0.020), fs(0.0201)]


def test_tiles_are_paid_for_whole() -> None:
    model = Tiled(tile_tokens=128, per_tile=0.010, constant=0.001)
    prices = {
        n: model.femtoseconds(Work(prefill_tokens=n, prefill_seqs=1)) for n in (1, 127, 128, 129, 256, 257)
    }
    tiles = {1: 1, 127: 1, 128: 1, 129: 2, 256: 2, 257: 3}
    assert prices == {n: fs(0.001) + fs(0.010) * count for n, count in tiles.items()}


def test_tiles_count_prompt_tokens_and_decodes_together() -> None:
    model = Tiled(tile_tokens=128, per_tile=0.010)
    assert model.femtoseconds(Work(100, 1, 0, 5050, 29, 900)) == 2 * fs(0.010)


def test_a_stratum_ends_with_its_bound() -> None:
    model = Stratified(
        [(128, Linear(constant=1.0)), (512, Linear(constant=2.0)), (None, Linear(constant=3.0))]
    )
    seconds = {n: model.seconds(Work(n - 1, 1, 0, 0, 1, 10)) for n in (1, 128, 129, 512, 513, 10**6)}
    assert seconds == {1: 1.0, 128: 1.0, 129: 2.0, 512: 2.0, 513: 3.0, 10**6: 3.0}


def test_a_stratified_slope_is_that_of_the_stratum() -> None:
    low, high = Linear(constant=1.0, per_decode_context=1e-7), Linear(constant=1.0, per_decode_context=2e-7)
    model = Stratified([(512, low), (None, high)])
    assert model.decode_slope(Work(decode_tokens=512)) == 10**8
    assert model.decode_slope(Work(decode_tokens=513)) == 2 * 10**8


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e-9, "1", True, None])
@pytest.mark.parametrize("name", ["constant", "per_decode_context", "per_prefill_attention", "per_sequence"])
def test_a_coefficient_must_be_finite_and_not_negative(name: str, value: object) -> None:
    with pytest.raises(CalibrationError, match=name):
        Linear(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["floor", "constant", "per_token", "per_sequence", "per_decode_context"])
def test_no_coefficient_of_a_hinge_is_negative(name: str) -> None:
    with pytest.raises(CalibrationError, match=f"{name} must be at least 0"):
        Hinge(**{"floor": 0.01, name: -1e-6})


def test_a_model_that_always_costs_nothing_is_refused() -> None:
    with pytest.raises(CalibrationError, match="Hinge needs"):
        Hinge(floor=0.0)
    with pytest.raises(CalibrationError, match="Tiled needs"):
        Tiled(tile_tokens=64, per_tile=0.0)
    with pytest.raises(CalibrationError, match="above 0 but got 0"):
        Tiled(tile_tokens=0, per_tile=1.0)


@pytest.mark.parametrize(
    ("model", "work"),
    [
        (Linear(constant=1e-3, per_decode_token=-1e-3), Work(decode_tokens=1, decode_context=5)),
        (Linear(constant=1e-3, per_token=-1e-3), Work(prefill_tokens=2, prefill_seqs=1)),
        (Linear(per_token=1e-3), Work()),
        (Tiled(tile_tokens=128, per_tile=1e-3), Work()),
    ],
)
def test_a_price_that_is_not_positive_raises(model: CostModel, work: Work) -> None:
    with pytest.raises(CalibrationError, match="takes more than 0 s"):
        model.femtoseconds(work)


@pytest.mark.parametrize("limits", [[], [512], [512, 512, None], [None, 512], [0, None], [None, None]])
def test_strata_must_rise_and_end_open(limits: list[int | None]) -> None:
    with pytest.raises(CalibrationError, match="max_tokens"):
        Stratified([(limit, Linear(constant=1.0)) for limit in limits])


@pytest.mark.parametrize("name", ["sarathi_fcfs-ample", "niyama_deadline-overload"])
def test_the_cost_of_the_decision_traces_is_a_hinge(name: str) -> None:
    path = SHARED / "golden" / f"{name}.json.gz"
    if not path.is_file():
        pytest.skip("the decision traces are not here")
    with gzip.open(path) as file:
        cost = json.load(file)["cost"]
    model = Hinge(
        floor=cost["floor_s"],
        constant=cost["base_s"],
        per_token=cost["per_token_s"],
        per_decode_context=cost["per_decode_context_token_s"],
    )
    exact = {key: Fraction(str(value)) for key, value in cost.items()}
    for tokens, context in ((1, 10), (140, 10**4), (145, 10**4), (146, 10**5), (512, 0), (2048, 10**6)):
        line = exact["base_s"] + exact["per_token_s"] * tokens
        seconds = max(exact["floor_s"], line) + exact["per_decode_context_token_s"] * context
        work = Work(prefill_tokens=tokens - 1, prefill_seqs=1, decode_tokens=1, decode_context=context)
        assert model.femtoseconds(work) == seconds * FS_PER_SECOND
