"""Which forms are compared on given cases: only terms that these can tell apart, only forms with cases enough."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from llmsim.calibrate.fitting.candidates import Floor, Form, Plain, Steps, Strata
from llmsim.calibrate.fitting.design import Sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

CASES_PER_NUMBER = 3
"""Cases that a form needs for each number that the data decides."""
INDEPENDENT = 1e-3
"""Share of a column that must be left when the columns before it are taken out, or it counts as their sum."""

_TOKENS = ("constant", "per_token")
_SEQUENCES = (*_TOKENS, "per_sequence")
_PHASES = ("constant", "per_prefill_token", "per_decode_token", "per_sequence")
_ATTENTION = ("per_decode_context", "per_prefill_attention")
_CONTEXTS = (*_ATTENTION, "per_prefill_context")

FORMS: tuple[Form, ...] = (
    Plain("linear", (*_TOKENS, *_ATTENTION)),
    Plain("linear, sequences", (*_SEQUENCES, *_ATTENTION)),
    Plain("linear, sequences, prefill context", (*_SEQUENCES, *_CONTEXTS)),
    Plain("linear, tokens by phase", (*_PHASES, *_CONTEXTS)),
    Floor("hinge", (*_TOKENS, *_ATTENTION)),
    Floor("hinge, sequences", (*_SEQUENCES, *_ATTENTION)),
    Floor("hinge, sequences, prefill context", (*_SEQUENCES, *_CONTEXTS)),
    Steps("tiled", (*_TOKENS, *_ATTENTION)),
    Steps("tiled, prefill context", (*_TOKENS, *_CONTEXTS)),
    Strata("2 strata, sequences alike", _TOKENS, ("per_sequence", *_CONTEXTS), 2),
    Strata("3 strata, sequences alike", _TOKENS, ("per_sequence", *_CONTEXTS), 3),
    Strata("2 strata", _SEQUENCES, _CONTEXTS, 2),
    Strata("3 strata", _SEQUENCES, _CONTEXTS, 3),
    Strata("2 strata, own contexts", (*_SEQUENCES, *_CONTEXTS), (), 2),
    Strata("3 strata, own contexts", (*_SEQUENCES, *_CONTEXTS), (), 3),
)
"""The forms, simple ones first; the terms in each are in the order in which they are given up last."""


def comparable_forms(sums: Sums, cases: int) -> tuple[list[Form], dict[str, str]]:
    """The forms to compare with `cases` cases in a fit, and why terms were left out: term -> reason."""
    left_out: dict[str, str] = {}
    forms: dict[tuple[object, ...], Form] = {}
    for form in FORMS:
        reduced = _reduced(form, sums, left_out)
        key = (type(form), reduced.terms, *((reduced.shared, reduced.strata) if isinstance(reduced, Strata) else ()))
        if CASES_PER_NUMBER * reduced.size <= cases:
            forms.setdefault(key, reduced)
    return list(forms.values()), left_out


def _reduced(form: Form, sums: Sums, left_out: dict[str, str]) -> Form:
    """The form without the terms that these cases cannot tell from the ones before them."""
    shared = form.shared if isinstance(form, Strata) else ()
    kept = _independent((*form.terms, *shared), sums, left_out)
    terms = tuple(term for term in form.terms if term in kept)
    if isinstance(form, Strata):
        return dataclasses.replace(form, terms=terms, shared=tuple(term for term in shared if term in kept))
    return dataclasses.replace(form, terms=terms)


def _independent(terms: tuple[str, ...], sums: Sums, left_out: dict[str, str]) -> list[str]:
    kept: list[str] = []
    basis: list[NDArray[np.float64]] = []
    for term in terms:
        column = sums.column[term]
        if not column.any():
            left_out.setdefault(term, "no case has any")
            continue
        rest = column / np.linalg.norm(column)
        for _ in range(2):  # once more, for what rounding left of the first time
            for vector in basis:
                rest = rest - (vector @ rest) * vector
        if np.linalg.norm(rest) < INDEPENDENT:
            left_out.setdefault(term, f"in these cases it follows from {', '.join(kept)}")
            continue
        kept.append(term)
        basis.append(rest / np.linalg.norm(rest))
    return kept
