"""`fit_batch_time`: fit every form, compare them on cases they have not seen, and take the simplest that is as good.

Cases are dealt into folds by the seed; each fold is predicted by fits to the others, with their own structure and their
own outliers. All held-out cases count, those flagged as outliers too: whether a case is one is known only after seeing
it. A form with more numbers is taken only if it beats the simpler ones by more than a standard error of the difference
over cases (over stretches of iterations, for a run).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from llmsim.calibrate.fitting.candidates import Form
from llmsim.calibrate.fitting.comparable_forms import comparable_forms
from llmsim.calibrate.fitting.cross_validation import deal, groups_of, held_out_seconds, standard_error
from llmsim.calibrate.fitting.design import FormFit, Sums, TooFewCasesError
from llmsim.calibrate.fitting.features import SUMS
from llmsim.calibrate.fitting.fit import error_figures
from llmsim.calibrate.fitting.fit_result import BatchTimeFit, Candidate, measured_box, predicted, works_of
from llmsim.calibrate.fitting.fit_warnings import fit_warnings
from llmsim.calibrate.profiling.plan import MIN_CASES
from llmsim.costs.forms import BatchTime
from llmsim.costs.records import FitErrors
from llmsim.errors import CalibrationError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Table = NDArray[np.float64]

__all__ = ["BatchTimeFit", "fit_batch_time"]

MARGIN = 0.0005
"""A gain below this share of the batch time is none, however certain: 0.05 points of MAPE."""


class _Tried(NamedTuple):
    """A form that was fitted: to all cases, and the seconds it predicts for the held-out ones, (cases,)."""

    form: Form
    fit: FormFit
    held_out: Table
    errors: Table
    """Size of the relative errors of the held-out cases, (cases,)."""


def fit_batch_time(table: pd.DataFrame, *, seed: int = 0, folds: int = 5) -> BatchTimeFit:
    """The batch time that a fit table (`features`) gives, with its errors, its competitors and its warnings.

    The same rows in any order, with the same seed, give the same batch time. Raises CalibrationError for fewer than
    20 rows, or times that are not positive.
    """
    _check(table, folds)
    rows = table.reset_index(drop=True).sort_values([*SUMS, "seconds", "case"], kind="stable")
    place, rows = rows.index, rows.reset_index(drop=True)
    sums, groups = Sums.of(rows), groups_of(rows)
    if int(groups.max()) + 1 < folds:
        raise CalibrationError(f"{folds} folds need as many different batches but there are {int(groups.max()) + 1}")
    fold_of = deal(groups, folds, seed)
    forms, left_out = comparable_forms(sums, len(rows) - int(np.bincount(fold_of).max()))
    tried, failed = _try_all(forms, sums, rows, fold_of)
    if not tried:
        raise CalibrationError(f"no form can be fitted to these {len(rows)} cases: {failed[0].note if failed else ''}")
    chosen, reason = _choose(tried, groups)
    predictions = _predictions(rows, chosen)
    errors, without_outliers = _errors(predictions)
    return BatchTimeFit(
        batch_time=_with_source(chosen.fit.batch_time, errors),
        box=measured_box(rows, f"The least and greatest of {len(rows)} measured batches."),
        errors=errors,
        errors_without_outliers=without_outliers,
        candidates=(*(_candidate(one, chosen, groups) for one in tried), *failed),
        reason=reason,
        predictions=predictions.set_index(place).sort_index(),
        warnings=tuple(fit_warnings(chosen.fit, predictions, left_out)),
    )


def _check(table: pd.DataFrame, folds: int) -> None:
    missing = [name for name in ("case", *SUMS, "seconds", "spread_pct", "repeats") if name not in table.columns]
    if missing:
        raise CalibrationError(f"the table of a fit has no column {missing[0]!r}; make it with fit_table or run_table")
    if len(table) < MIN_CASES:
        raise CalibrationError(f"a fit needs at least {MIN_CASES} cases but got {len(table)}; measure more")
    if not 2 <= folds <= MIN_CASES:
        raise CalibrationError(f"folds must be 2 to {MIN_CASES} but got {folds}")
    seconds = table["seconds"].to_numpy(dtype=np.float64)
    wrong = ~(np.isfinite(seconds) & (seconds > 0))
    if wrong.any():
        at = int(wrong.argmax())
        raise CalibrationError(f"case {table['case'].iloc[at]}: seconds must be above 0 but are {seconds[at]}")


def _try_all(
    forms: list[Form], sums: Sums, rows: pd.DataFrame, fold_of: NDArray[np.int64]
) -> tuple[list[_Tried], list[Candidate]]:
    """Every form fitted and cross-validated; those that cannot be, with the reason."""
    seconds = rows["seconds"].to_numpy(dtype=np.float64)
    tried, failed = [], []
    for form in forms:
        try:
            fit = form.fit(sums, seconds)
            fit.batch_time.cost_model()
            held_out = held_out_seconds(form, rows, fold_of)
        except (TooFewCasesError, CalibrationError) as error:
            note = f"not fitted: {error}"
            failed.append(Candidate(name=form.name, form=form.form, numbers=form.size, held_out=None, note=note))
            continue
        tried.append(_Tried(form, fit, held_out, np.abs(held_out / seconds - 1.0)))
    return tried, failed


def _choose(tried: list[_Tried], groups: NDArray[np.int64]) -> tuple[_Tried, str]:
    """The simplest form that the best one does not beat by more than its standard error, and the reason in words."""
    best = min(tried, key=lambda one: (one.errors.mean(), one.form.size))
    for one in sorted(tried, key=lambda one: (one.form.size, one.errors.mean())):
        gain = float((one.errors - best.errors).mean())
        if gain <= _allowed(one, best, groups):
            break
    if one is best:
        return one, (
            f"{one.form.name} has the lowest held-out MAPE, {100 * one.errors.mean():.2f} %, and no form with fewer"
            " numbers is within a standard error of it"
        )
    return one, (
        f"{best.form.name} has the lowest held-out MAPE, {100 * best.errors.mean():.2f} %, with {best.form.size}"
        f" numbers; {one.form.name} needs {one.form.size}, and its {100 * one.errors.mean():.2f} % is within a standard"
        f" error of the difference ({100 * _allowed(one, best, groups):.2f} points)"
    )


def _allowed(one: _Tried, best: _Tried, groups: NDArray[np.int64]) -> float:
    """By how much `one` may be worse than `best` and still count as good."""
    return max(standard_error(one.errors - best.errors, groups), MARGIN)


def _candidate(one: _Tried, chosen: _Tried, groups: NDArray[np.int64]) -> Candidate:
    if one is chosen:
        note = "chosen"
    else:
        points = 100 * float((one.errors - chosen.errors).mean())
        error = 100 * standard_error(one.errors - chosen.errors, groups)
        note = f"{points:+.2f} points against the chosen one, standard error {error:.2f}"
    figures = error_figures(one.held_out / (one.held_out / (1.0 + one.errors)) - 1.0)
    return Candidate(
        name=one.form.name,
        form=one.form.form,
        numbers=one.form.size,
        held_out=figures,
        note=note,
        chosen=one is chosen,
    )


def _predictions(rows: pd.DataFrame, chosen: _Tried) -> pd.DataFrame:
    """As `BatchTimeFit.predictions`, in the order of `rows`."""
    measured = rows["seconds"].to_numpy(dtype=np.float64)
    seconds = predicted(chosen.fit.batch_time, works_of(rows))
    has_prefill, has_decode = rows["prefill_tokens"] > 0, rows["decode_tokens"] > 0
    regime = np.where(has_prefill & has_decode, "mixed", np.where(has_prefill, "prefill", "decode"))
    held = rows[["case", *SUMS]].assign(
        regime=regime,
        tokens=rows["prefill_tokens"] + rows["decode_tokens"],
        sequences=rows["prefill_seqs"] + rows["decode_tokens"],
        measured_s=measured,
        predicted_s=seconds,
        held_out_predicted_s=chosen.held_out,
        relative_error=seconds / measured - 1.0,
        held_out_relative_error=chosen.held_out / measured - 1.0,
        outlier=chosen.fit.outliers,
        spread_pct=rows["spread_pct"],
        repeats=rows["repeats"],
    )
    return held


def _errors(predictions: pd.DataFrame) -> tuple[FitErrors, FitErrors]:
    """Of all cases, and of those that are no outliers."""
    kept = predictions[~predictions["outlier"]]
    flagged = len(predictions) - len(kept)
    rest = error_figures(kept["held_out_relative_error"].to_numpy())
    note = (
        "held_out: cross-validated, every case predicted by a fit to others. The form was chosen by the same figure."
        f" Both count all cases, also the {flagged} that were left out of the fit as outliers; without these held_out"
        f" is {rest.mape_pct:g} % on average, {rest.p95_pct:g} % at p95, {rest.max_pct:g} % at most."
    )
    if not flagged:
        note = "held_out: cross-validated, every case predicted by a fit to others. No case was left out as an outlier."
    everything = FitErrors(
        in_sample=error_figures(predictions["relative_error"].to_numpy()),
        held_out=error_figures(predictions["held_out_relative_error"].to_numpy()),
        note=note,
    )
    without = FitErrors(
        in_sample=error_figures(kept["relative_error"].to_numpy()),
        held_out=rest,
        note=f"Without the {flagged} cases that were left out of the fit as outliers.",
    )
    return everything, without


def _with_source(batch_time: BatchTime, errors: FitErrors) -> BatchTime:
    """The batch time with a source in every coefficient."""
    held_out = errors.held_out
    assert held_out is not None  # _errors gives both
    source = f"Fitted: {held_out.cases} cases, held-out MAPE {held_out.mape_pct:.1f} %"
    coefficients = tuple(
        dataclasses.replace(item, source=f"{source}." if item.value else f"{source}; at its bound, 0.")
        for item in batch_time.coefficients
    )
    strata = tuple(
        dataclasses.replace(part, batch_time=_with_source(part.batch_time, errors)) for part in batch_time.strata
    )
    return dataclasses.replace(batch_time, coefficients=coefficients, strata=strata)
