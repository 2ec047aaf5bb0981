"""What a run directory held when it was saved: SHA256SUMS beside its files, as `sha256sum -c` reads it, too.

A flipped bit in a table is a number like any other: only the digest tells. A directory without the file (of an older
llmsim, or edited on purpose) is taken as it is, but for what `runs.loading` checks of its form.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from llmsim.errors import ConfigError
from llmsim.runs.folders import saving

SUMS = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


def seal(folder: Path) -> None:
    """Write the digests of all files of a directory. SaveError if that fails."""
    with saving(folder / SUMS):
        lines = [f"{_digest(path)}  {path.name}\n" for path in sorted(folder.iterdir()) if path.is_file()]
        (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def is_sealed(folder: Path) -> bool:
    """Whether there are digests to hold the files to."""
    return (folder / SUMS).is_file()


def check_seal(folder: Path, names: Sequence[str]) -> None:
    """ConfigError, naming it, for the first of these files that is not the one that was saved; nothing if unsealed."""
    if not is_sealed(folder):
        return
    try:
        text = (folder / SUMS).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{folder / SUMS}: cannot be read: {error}; copy the run again") from None
    lines = text.splitlines()
    known = {match[2]: match[1] for line in lines if (match := LINE.fullmatch(line))}
    for name in names:
        try:
            found = _digest(folder / name)
        except OSError as error:
            raise ConfigError(f"{folder / name}: cannot be read: {error.strerror}; copy the run again") from None
        if known.get(name) != found:
            raise ConfigError(
                f"{folder / name}: is not the file that was saved, by {SUMS}: damaged, cut short, or edited; copy the "
                f"run again or run it again (who edited it on purpose deletes {SUMS})"
            )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
