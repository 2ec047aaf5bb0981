"""How many iterations the windows of a measured run held: the window over the time of one iteration, rounded.

The time of one iteration is the calibration's, corrected where the run itself says better: first by what is known
exactly (token_counts), without that by the factor that best makes whole numbers of the windows. Otherwise a model that
is wrong by a tenth would miscount, and the miscount would hide the error: the window of five iterations that it takes
for four looks right. Windows of more than MOST iterations are left out, as they could be one more or less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llmsim.core.batch import Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from llmsim.costs.base import CostModel
    from llmsim.metrics.quantiles import Floats
    from llmsim.validation.token_counts import Stretch

MOST = 10
"""Windows of more iterations are not used: a model 5 % off would miscount them."""
FEWEST = 10
"""With fewer windows than this no factor is looked for."""
FACTORS = np.geomspace(0.5, 2.0, 141)
"""Measured over modelled time of an iteration, at most: further off, counts are beyond recovery."""
SAMPLE = 400
"""Windows that the factor is looked for with."""
SETTLE = 0.05
"""A fit to the counts that moves an iteration's time by more than this is a fit to wrong counts."""
CLEARLY = 0.15
"""A factor must bring the windows nearer to whole numbers by this much (see _wholeness), else the model's times do."""
FAR_FACTOR = 0.2
"""What a factor e times off must gain in fit: half the true factor makes whole numbers as well, twice the counts."""
KNOTS = 9
"""Numbers of decodes between which the correction by tokens is linear."""
SMOOTH, NEAR = 5.0, 0.3
"""How much the correction is held to a line over the knots, and to none; in square roots of iterations."""


def count_iterations(windows: pd.DataFrame, model: CostModel, known: Sequence[Stretch] = ()) -> pd.DataFrame:
    """The windows with single_s, pace_s, iterations, off and modelled_s.

    `single_s` are the modelled seconds of a window's first iteration, `pace_s` what an iteration of it really takes,
    `off` is how far window / pace lay from the whole number `iterations`. `modelled_s` are the seconds that the model
    gives these iterations, each with its own context; NaN above MOST. Windows of 0 iterations are two events of one
    iteration, stamped apart. `known` are stretches whose iterations are known (tied_stretches).
    """
    works = [Work(0, 0, 0, 0, *row) for row in windows[["decodes", "context", "longest"]].itertuples(index=False)]
    single = np.array([model.seconds(work) for work in works], dtype=np.float64)
    seconds = windows["window_ns"].to_numpy() / 1e9
    pace = true_pace(seconds, single) if len(windows) else single
    if known:
        pace = pace_by_tokens(seconds, pace, windows["decodes"].to_numpy(), known)
    whole = np.rint(seconds / pace).astype(np.int64)
    modelled = [
        sum(model.seconds(work.repeated(step)) for step in range(count)) if count <= MOST else np.nan
        for work, count in zip(works, whole.tolist(), strict=True)
    ]
    return windows.assign(
        single_s=single,
        pace_s=pace,
        iterations=whole,
        off=np.abs(seconds / pace - whole),
        modelled_s=np.array(modelled, dtype=np.float64),
    )


def pace_by_tokens(window_s: Floats, pace_s: Floats, decodes: Floats, known: Sequence[Stretch]) -> Floats:
    """`pace_s` (windows,) corrected by a smooth function of the decodes, so that known stretches hold what they hold.

    Least squares: each stretch is a sum of window / pace, which is linear in the correction of 1 / pace.
    """
    knots = np.unique(np.linspace(decodes.min(), decodes.max(), KNOTS))
    hats = np.stack([np.interp(decodes, knots, row) for row in np.eye(len(knots))], axis=1)  # (windows, knots)
    turns = window_s / pace_s
    rows, rest = [], []
    for stretch in known:
        part = slice(stretch.first, stretch.last)
        root = np.sqrt(stretch.iterations)
        rows.append(turns[part] @ hats[part] / root)
        rest.append((stretch.iterations - turns[part].sum()) / root)
    held = [np.stack(rows), SMOOTH * np.diff(np.eye(len(knots)), axis=0), NEAR * np.eye(len(knots))]
    nothing = np.zeros(2 * len(knots) - 1)
    correction, *_ = np.linalg.lstsq(np.concatenate(held), np.concatenate([rest, nothing]), rcond=None)
    return np.asarray(pace_s / np.clip(1 + hats @ correction, 0.5, 2), dtype=np.float64)


def true_pace(window_s: Floats, single_s: Floats) -> Floats:
    """Seconds that one iteration of each window takes (windows,): the model's, `single_s`, times a factor.

    The factor goes from one value for the cheapest batch to another for the dearest, evenly in the modelled seconds.
    Of all such pairs it is the one that best makes whole numbers of the windows, then fitted to these numbers. With
    fewer than FEWEST windows of no more than MOST iterations it is 1, and so it is unless another fits clearly better.
    """
    pace = single_s * _factors(window_s, single_s)
    for _ in range(3):  # the grid is coarse: settle on what the counts themselves say
        whole = np.rint(window_s / pace)
        used = (whole >= 1) & (whole <= MOST)
        if used.sum() < FEWEST or np.ptp(single_s[used]) == 0:
            break
        weight = 1 / (whole[used] * pace[used])  # errors as shares
        terms = np.stack([whole[used], whole[used] * single_s[used]]) * weight
        (level, slope), *_ = np.linalg.lstsq(terms.T, window_s[used] * weight, rcond=None)
        fitted = level + slope * single_s
        if (np.abs(fitted / pace - 1) > SETTLE).any():
            break
        pace = fitted
    return pace if _wholeness(window_s, pace) > _wholeness(window_s, single_s) + CLEARLY else single_s


def _wholeness(window_s: Floats, pace_s: Floats) -> float:
    """How near the windows of no more than MOST iterations are to whole numbers of them: 1 on, -1 half way between."""
    turns = window_s / pace_s
    used = (turns > 0.4) & (turns < MOST + 0.5)
    return float(np.cos(2 * np.pi * turns[used]).mean()) if used.any() else -1.0


def _factors(window_s: Floats, single_s: Floats) -> Floats:
    """The factor of each window, from the grid; shape (windows,)."""
    quotient = window_s / single_s
    near = np.flatnonzero((quotient > 0.4) & (quotient < 2 * MOST))
    if len(near) < FEWEST:
        return np.ones_like(single_s)
    near = near[:: -(-len(near) // SAMPLE)]
    low, width = single_s.min(), np.ptp(single_s) or 1.0
    place = (single_s - low) / width
    best, found = -np.inf, (1.0, 1.0)
    for cheapest in FACTORS:
        factor = cheapest + (FACTORS[:, None] - cheapest) * place[near]  # (factors of the dearest, windows)
        turns = quotient[near] / factor
        fit = np.where(turns < MOST + 0.5, np.cos(2 * np.pi * turns), 0).mean(axis=1)
        fit -= FAR_FACTOR * np.abs(np.log(factor)).mean(axis=1)
        if fit.max() > best:
            best, found = float(fit.max()), (float(cheapest), float(FACTORS[int(fit.argmax())]))
    return np.asarray(found[0] + (found[1] - found[0]) * place, dtype=np.float64)
