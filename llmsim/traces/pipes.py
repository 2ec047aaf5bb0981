"""What comes through a pipe can be read only once, and a workload is read more often: it is copied to a disk.

The copy lasts as long as the process, in the folder for temporary files (TMPDIR).
"""

from __future__ import annotations

import os
import shutil
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
            _copies[key] = _copy(pipe, path, _folder() / str(len(_copies)))
    return _copies[key]


@cache
def _folder() -> Path:
    """Where copies are kept; deleted when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="llmsim-pipe-")
    _keep.append(folder)
    return Path(folder.name)


_keep: list[tempfile.TemporaryDirectory[str]] = []


def _copy(pipe: IO[bytes], source: Path, target: Path) -> Path:
    """Copy to the end of the pipe; on a terminal it is said how far it is."""
    said = start = time.monotonic()
    size = 0
    with target.open("wb") as file:
        while data := pipe.read(_CHUNK):
            try:
                file.write(data)
            except OSError as error:
                raise TraceError(
                    f"{source}: what comes through the pipe does not fit {target.parent} ({error.strerror}, "
                    f"{shutil.disk_usage(target.parent).free:,} bytes free); set TMPDIR to a larger disk"
                ) from None
            size += len(data)
            if sys.stderr.isatty() and time.monotonic() - said >= _SAY_EVERY_S:
                said = time.monotonic()
                sys.stderr.write(f"\r{source}: {size / 2**20:,.0f} MiB read")
    if said > start:
        sys.stderr.write(os.linesep)
    return target
