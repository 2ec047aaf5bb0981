"""Searches on oracles whose border is known: exact probes, exact brackets."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llmsim.errors import ConfigError
from llmsim.studies.capacity import Bracket, Probe, drive, osdi_search, rate_search, replica_search
from llmsim.studies.capacity.search import REACH, inversions
from llmsim.theory.intervals import mean_estimate, ratio_estimate


def below(border: float):
    """An oracle that passes up to the border."""
    return lambda at: Probe(at, at <= border)


def above(border: float):
    """An oracle that passes from the border on."""
    return lambda at: Probe(at, at >= border)


def rates(found) -> list[float]:
    return [probe.at for probe in found.probes]


def test_a_rate_is_bracketed_by_doubling_and_then_halved_down_to_the_precision():
    found = drive(rate_search(1.0, 0.01, check=False), below(3.3))
    assert rates(found) == [1, 2, 4, 3, 3.5, 3.25, 3.375, 3.3125, 3.28125]
    assert found.bracket == Bracket(3.28125, 3.3125)


def test_a_start_above_the_capacity_is_halved():
    found = drive(rate_search(4.0, 0.2, check=False), below(0.8))
    assert rates(found) == [4, 2, 1, 0.5, 0.75, 0.875]
    assert found.bracket == Bracket(0.75, 0.875)


@given(st.floats(0.05, 500), st.floats(0.5, 20), st.sampled_from([0.1, 0.01, 0.001]))
def test_the_bracket_holds_the_border_and_is_as_narrow_as_asked(border, start, precision):
    bracket = drive(rate_search(start, precision), below(border)).bracket
    assert bracket.keeps is not None
    assert bracket.fails is not None
    assert bracket.keeps <= border < bracket.fails
    assert bracket.fails - bracket.keeps <= precision * bracket.keeps


def test_a_border_out_of_reach_is_reported_as_such():
    assert drive(rate_search(2.0), below(math.inf)).bracket == Bracket(2.0 * REACH, None)
    assert drive(rate_search(2.0), below(0)).bracket == Bracket(None, 2.0 / REACH)


def test_the_probes_beside_the_bracket_find_a_second_border():
    island = drive(rate_search(1.0), lambda at: Probe(at, at <= 3.3 or 3.6 < at < 3.7))
    assert island.bracket == Bracket(3.28125, 3.3125)
    assert rates(island)[-2:] == pytest.approx([0.9 * 3.28125, 1.1 * 3.3125])
    assert inversions(island.probes) == 1
    assert inversions(drive(rate_search(1.0), below(3.3)).probes) == 0


def test_contradictions_are_counted_above_the_lowest_probe_that_turned():
    probes = [Probe(1, True), Probe(2, False), Probe(3, True), Probe(4, False), Probe(5, True)]
    assert inversions(probes) == 2
    assert inversions(probes, harder_upwards=False) == 2


@pytest.mark.parametrize("most", [1, 2, 7, 16])
def test_the_fewest_replicas_are_found_as_by_trying_all(most):
    for border in range(1, most + 3):
        for start in range(1, most + 1):
            bracket = drive(replica_search(most, start), above(border)).bracket
            if border > most:
                assert bracket == Bracket(None, most)
            else:
                assert bracket == Bracket(border, border - 1 or None)


def test_replicas_are_doubled_and_then_halved():
    assert rates(drive(replica_search(64), above(6))) == [1, 2, 4, 8, 6, 5]


@pytest.mark.parametrize(
    "search", [lambda: rate_search(0), lambda: rate_search(1, 0), lambda: replica_search(4, 5), lambda: osdi_search(0)]
)
def test_a_start_or_precision_that_leads_nowhere_is_refused(search):
    with pytest.raises(ConfigError, match="but got"):
        search()


def test_the_osdi_rule_probes_the_rates_worked_out_by_hand():
    """Passes up to 2.9. Delay 0.1 s up to 2, 1.5 s up to 2.9, 10 s below 8, then 600 s; start 2, so right = 4.

    2     pass, 0.1 < 2/8: right = 4*4 = 16, left = 2      (2 + 16)/2 = 9
    9     fail, 600 > 500: right = 4.5                     (2 + 4.5)/2 = 3.25
    3.25  fail: right = 3.25                               (2 + 3.25)/2 = 2.625, to even 2.62
    2.62  pass, > 0.8*3.25: right stays at the lowest fail (2.62 + 3.25)/2 = 2.935, stored a little above: 2.94
    2.94  fail: right = 2.94                               (2.62 + 2.94)/2 = 2.78
    2.78  pass, > 0.8*2.94: right stays, left = 2.78       (2.78 + 2.94)/2 = 2.86
    2.86  pass; 0.08 is not below 2.5 % of 2.86            (2.86 + 2.94)/2 = 2.9
    2.9   pass; 0.04 is below 2.5 % of 2.9, the end
    """

    def oracle(at: float) -> Probe:
        delay = 0.1 if at <= 2 else 1.5 if at <= 2.9 else 10 if at < 8 else 600
        return Probe(at, at <= 2.9, delay)

    found = drive(osdi_search(2.0), oracle)
    assert rates(found) == [2, 9, 3.25, 2.62, 2.94, 2.78, 2.86, 2.9]
    assert found.bracket == Bracket(2.9, 2.94)


def test_the_osdi_rule_doubles_at_low_delays_and_near_its_upper_end_and_stops_after_20_probes():
    doubled = drive(osdi_search(1.0), lambda at: Probe(at, True, 0.3))  # below a quarter of 2 s: right doubles
    assert rates(doubled)[:4] == [1, 2.5, 5.25, 10.62]  # (1+4)/2, (2.5+8)/2, (5.25+16)/2 = 10.625 to even
    assert len(doubled.probes) == 20
    assert doubled.bracket.fails is None
    slow = drive(osdi_search(1.0), lambda at: Probe(at, True, 1.0))  # right = 2 until a rate above 0.8 * 2
    assert rates(slow)[:4] == [1, 1.5, 1.75, 2.88]  # 1.75 doubles it to 4: 2.875 to even


def test_the_osdi_rule_ends_where_nothing_was_scheduled_or_rounding_repeats_the_rate():
    assert len(drive(osdi_search(1.0), lambda at: Probe(at, False)).probes) == 1
    tiny = drive(osdi_search(0.01), lambda at: Probe(at, False, 5.0))
    assert rates(tiny) == [0.01]
    assert tiny.bracket == Bracket(None, 0.01)


@given(st.lists(st.floats(0.1, 100), min_size=2, max_size=8, unique=True))
def test_the_interval_is_the_student_t_interval_of_the_mean(values):
    ours = mean_estimate(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=ours.mean, scale=stats.sem(values))
    assert (ours.low, ours.high) == pytest.approx((low, high))


def test_pairs_have_a_narrow_ratio_where_their_values_vary_together():
    base = [1.0, 2.0, 4.0]
    exact = ratio_estimate([1.5, 3.0, 6.0], base)
    assert (exact.mean, exact.low, exact.high) == pytest.approx((1.5, 1.5, 1.5))
    rough = ratio_estimate([1.5, 3.3, 5.6], base)
    logs = [math.log(ratio) for ratio in (1.5, 1.65, 1.4)]
    low, high = stats.t.interval(0.95, 2, loc=sum(logs) / 3, scale=stats.sem(logs))
    assert (rough.low, rough.high) == pytest.approx((math.exp(low), math.exp(high)))
    assert mean_estimate([3.0]).low is None
