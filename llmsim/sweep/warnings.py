"""What the runs of a sweep warn of, as `llmsim simulate` does of one: each sentence once, with how many say it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pandas as pd

from llmsim.sweep.tables import FAILED

MOST_NOTES = 5
"""Notes that so many runs share are told; the column `notes` has all."""


def what_runs_say(results: pd.DataFrame) -> Iterator[str]:
    """Notes that several runs have in the same words, and how far calibrations were left, from the rows of runs."""
    done = results[results["status"] != FAILED]
    if "notes" in done:
        notes = Counter(note for text in done["notes"].dropna() for note in str(text).split(" | ") if note)
        shared = [(note, count) for note, count in notes.items() if count > 1 or len(done) == 1]
        for note, count in sorted(shared, key=lambda pair: -pair[1])[:MOST_NOTES]:
            yield note if count == len(done) else f"in {count} of {len(done)} runs: {note}"
    share = done.get("calibration.share_outside_box")
    if share is not None and (share > 0).any():
        names = sorted(set(done.loc[share > 0, "calibration.name"]))
        yield (
            f"{share.min():.1%} to {share.max():.1%} of the iterations of a run lie outside what the calibration "
            f"{' and '.join(names)} was measured on, so their times are extrapolated; `llmsim calibrations show "
            f"{names[0]}` shows its sources"
        )
