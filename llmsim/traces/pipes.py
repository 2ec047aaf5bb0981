"""What comes through a pipe can be read only once, and a workload is read more often: it is copied to a disk.

The copy lasts as long as the process, in the folder for temporary files (TMPDIR).
"""

from __future__ import annotations

import stat
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import IO

from llmsim.errors import TraceError

_CHUNK = 1 << 20
_SAY_EVERY_S = 1.0
_copies: dict[tuple[str, int, int], Path] = {}


def on_disk(path: Path) -> Path:
    """`path` itself; of a pipe (named, /dev/stdin, <(command)) the copy of all that came through it.

    OSError if it cannot be read, TraceError for a terminal and for a disk that does not hold the copy.
    """
    status = path.stat()
    if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
        return path
    key = str(path), status.st_dev, status.st_ino
    if key not in _copies:
        with path.open("rb", buffering=0) as pipe:
            if pipe.isatty():
                raise TraceError(f"{path}: is a terminal; send a file through it (llmsim ... {path} < FILE)")
            target = Path(_folder().name) / str(len(_copies))
            try:
                _copy(pipe, path, target)
            except OSError as error:
                raise TraceError(
                    f"{path}: what comes through the pipe cannot be kept in {target.parent} ({error.strerror}); set "
                    "TMPDIR to a larger disk"
                ) from None
            _copies[key] = target
    return _copies[key]


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Where copies are kept; deleted when the process ends."""
    return tempfile.TemporaryDirectory(prefix="llmsim-pipe-")


def _copy(pipe: IO[bytes], source: Path, target: Path) -> None:
    """Copy to the end of the pipe; on a terminal it is said how far it is."""
    said = start = time.monotonic()
    with target.open("wb") as file:
        while data := pipe.read(_CHUNK):
            file.write(data)
            if sys.stderr.isatty() and time.monotonic() - said >= _SAY_EVERY_S:
                said = time.monotonic()
                sys.stderr.write(f"\r{source}: {file.tell() / 2**20:,.0f} MiB read")
    if said > start:
        sys.stderr.write("\n")
