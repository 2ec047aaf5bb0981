"""How the tests themselves are run: which examples are left out, and who waits for whom."""

from __future__ import annotations

import threading

import pytest

from tests import effort
from tests.conftest import turn

WAIT_S = 30


@pytest.mark.parametrize(("everything", "wanted"), [(True, list(range(18))), (False, [0, 2, 5, 8, 11, 14, 17])])
def test_some_cases_are_spread_from_the_first_to_the_last(monkeypatch, everything, wanted):
    monkeypatch.setattr(effort, "ALL", everything)
    assert effort.cases(range(18), 7) == wanted
    assert effort.cases("abc", 1) == (list("abc") if everything else ["a"])
    assert effort.cases("abc", 5) == list("abc")


def test_some_examples_are_a_fifth_or_as_many_as_said(monkeypatch):
    monkeypatch.setattr(effort, "ALL", False)
    assert [effort.examples(count) for count in (100, 20, 3)] == [20, 5, 3]
    assert effort.examples(25, 10) == 10
    monkeypatch.setattr(effort, "ALL", True)
    assert effort.examples(25, 10) == 25


@pytest.mark.parametrize(("one", "other"), [(True, False), (False, True), (True, True), (False, False)])
def test_who_runs_alone_runs_beside_nobody_and_the_others_together(tmp_path, one, other):
    inside = threading.Event()

    def enter() -> None:
        with turn(tmp_path, alone=other):
            inside.set()

    second = threading.Thread(target=enter, daemon=True)
    with turn(tmp_path, alone=one):
        second.start()
        assert inside.wait(0.1 if one or other else WAIT_S) == (not one and not other)
    assert inside.wait(WAIT_S)
    second.join()
