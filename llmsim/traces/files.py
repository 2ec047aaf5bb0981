"""Bytes of a workload file, plain or gzipped, and its digest; files are written whole or not at all.

Gzip is told from the first bytes, not from the name: public traces are often renamed.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import tempfile
import zlib
from pathlib import Path

from llmsim.errors import TraceError

GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20


def read_bytes(path: str | Path) -> bytes:
    """Decompressed content of `path`; TraceError if it is absent, empty, or a damaged gzip file."""
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    if is_gzip(raw, path):
        try:
            raw = gzip.decompress(raw)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise damaged_gzip(path, error) from None
    if not raw.strip():
        raise no_text(path)
    return raw


def unreadable(path: Path, error: OSError) -> TraceError:
    """The error for a file that is not there or may not be read."""
    if isinstance(error, FileNotFoundError):
        return TraceError(f"{path}: no such file; check the path (shipped workloads are named without a folder)")
    return TraceError(f"{path}: cannot be read ({error.strerror}); check that it is a readable file")


def is_gzip(start: bytes, path: Path) -> bool:
    """Whether a file that begins with these bytes is gzipped; TraceError if it is empty, or only named so."""
    if not start:
        raise TraceError(f"{path}: the file is empty (0 bytes); fetch or export it again")
    if start[:2] != GZIP_MAGIC and path.suffix == ".gz":
        raise TraceError(
            f"{path}: the name ends in .gz but row 1 starts with {start[:16]!r}, which is not gzip; rename it "
            "or fetch it again"
        )
    return start[:2] == GZIP_MAGIC


def no_text(path: Path) -> TraceError:
    """The error for a file of blanks."""
    return TraceError(f"{path}: the file is empty (no rows); fetch or export it again")


def damaged_gzip(path: Path, error: Exception) -> TraceError:
    """The error for gzip data that breaks off; it says after how many rows."""
    rows = 0
    part = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        with path.open("rb") as file:
            while not part.eof and (data := file.read(_CHUNK)):
                rows += part.decompress(data).count(b"\n")
    except zlib.error:
        rows = 0
    what = "truncated" if isinstance(error, EOFError) else "damaged"
    return TraceError(f"{path}: {what} gzip file, readable up to row {rows} ({error}); fetch or copy the file again")


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write `data` to `path` (gzipped if the name ends in .gz) through a temporary file, so no partial file
    is left.

    The gzip header holds no time, so equal data give equal files. TraceError if the folder cannot be written.
    """
    path = Path(path)
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise TraceError(f"{path}: cannot be written ({error.strerror}); choose another place with --out") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        # mkstemp makes files private; a workload is an ordinary file, so give it the mode of one.
        umask = os.umask(0)
        os.umask(umask)
        Path(partial).chmod(0o666 & ~umask)
        Path(partial).replace(path)
    except OSError as error:
        raise TraceError(f"{path}: cannot be written ({error.strerror}); choose another place with --out") from None
    finally:
        Path(partial).unlink(missing_ok=True)
    return path
