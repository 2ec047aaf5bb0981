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


def read_bytes(path: str | Path) -> bytes:
    """Decompressed content of `path`; TraceError if it is absent, empty, or a damaged gzip file."""
    path = Path(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise TraceError(
            f"{path}: no such file; check the path (shipped workloads are named without a folder)"
        ) from None
    except OSError as error:
        raise TraceError(
            f"{path}: cannot be read ({error.strerror}); check that it is a readable file"
        ) from None
    if not raw:
        raise TraceError(f"{path}: the file is empty (0 bytes); fetch or export it again")
    if raw[:2] == GZIP_MAGIC:
        raw = _gunzip(raw, path)
    elif path.suffix == ".gz":
        raise TraceError(
            f"{path}: the name ends in .gz but row 1 starts with {raw[:16]!r}, which is not gzip; rename it "
            "or fetch it again"
        )
    if not raw.strip():
        raise TraceError(f"{path}: the file is empty (no rows); fetch or export it again")
    return raw


def _gunzip(raw: bytes, path: Path) -> bytes:
    """Decompressed `raw`; TraceError that says after how many rows the data breaks off."""
    try:
        return gzip.decompress(raw)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        rows = _readable_part(raw).count(b"\n")
        what = "truncated" if isinstance(error, EOFError) else "damaged"
        raise TraceError(
            f"{path}: {what} gzip file, readable up to row {rows} ({error}); fetch or copy the file again"
        ) from None


def _readable_part(raw: bytes) -> bytes:
    """What can be decompressed before the damage."""
    try:
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(raw)
    except zlib.error:
        return b""


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
        raise TraceError(
            f"{path}: cannot be written ({error.strerror}); choose another place with --out"
        ) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        # mkstemp makes files private; a workload is an ordinary file, so give it the mode of one.
        umask = os.umask(0)
        os.umask(umask)
        Path(partial).chmod(0o666 & ~umask)
        Path(partial).replace(path)
    except OSError as error:
        raise TraceError(
            f"{path}: cannot be written ({error.strerror}); choose another place with --out"
        ) from None
    finally:
        Path(partial).unlink(missing_ok=True)
    return path
