"""Bytes of a workload file, packed or plain, and their digest; files are written whole or not at all.

How a file is packed is told from its first bytes, not from its name: public traces are often renamed.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from llmsim.errors import TraceError
from llmsim.traces.pipes import on_disk

PACKINGS = {
    "gzip": (b"\x1f\x8b", ".gz"),
    "zstd": (b"\x28\xb5\x2f\xfd", ".zst"),
    "bz2": (b"BZh", ".bz2"),
    "xz": (b"\xfd7zXZ\x00", ".xz"),
}
"""First bytes of a packed file, and what its name ends in."""
_CHUNK = 1 << 20


def read_bytes(path: str | Path) -> bytes:
    """Unpacked content of `path`; TraceError if it is absent, empty, or damaged."""
    data = b"".join(chunks(path))
    if not data.strip():
        raise no_text(path)
    return data


def first_bytes(path: str | Path, count: int) -> bytes:
    """The first unpacked bytes of a file; TraceError if it cannot be read."""
    start = b""
    for chunk in chunks(path):
        start += chunk
        if len(start) >= count:
            break
    return start[:count]


def chunks(path: str | Path) -> Iterator[bytes]:
    """Unpacked content of `path`, piece by piece; TraceError as from `read_bytes`, but for a file of blanks."""
    path = Path(path)
    packing = packing_of(path)
    with _readable(path) as file:
        yield from iter(lambda: file.read(_CHUNK), b"") if packing is None else _unpacked(file, packing, path)


@contextmanager
def _readable(path: Path) -> Iterator[IO[bytes]]:
    """The open file; TraceError if it is not there or cannot be read."""
    try:
        with on_disk(path).open("rb") as file:
            yield file
    except FileNotFoundError:
        raise TraceError(
            f"{path}: no such file; check the path (shipped workloads are named without a folder)"
        ) from None
    except OSError as error:
        raise TraceError(f"{path}: cannot be read ({error.strerror}); check that it is a readable file") from None


def packing_of(path: Path) -> str | None:
    """How a file is packed; TraceError if it cannot be read, is empty, or is only named as if it were packed."""
    with _readable(path) as file:
        start = file.read(16)
    if not start:
        raise TraceError(f"{path}: the file is empty (0 bytes); fetch or export it again")
    for name, (magic, ending) in PACKINGS.items():
        if start.startswith(magic):
            return name
        if path.suffix == ending:
            raise TraceError(
                f"{path}: the name ends in {ending} but row 1 starts with {start[:16]!r}, which is not {name}; rename "
                "it or fetch it again"
            )
    return None


def _unpacked(file: IO[bytes], packing: str, path: Path) -> Iterator[bytes]:
    """What a packed file holds; TraceError where it breaks off, which says after how many rows."""
    rows = 0
    try:
        with _opened(file, packing) as unpacked:
            # read1 gives what there is before it stumbles over what is not.
            while data := (unpacked.read if packing == "zstd" else unpacked.read1)(_CHUNK):
                rows += data.count(b"\n")
                yield data
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        what = "truncated" if isinstance(error, EOFError) or "runcated" in str(error) else "damaged"
        raise TraceError(
            f"{path}: {what} {packing} file, readable up to row {rows} ({error}); fetch or copy the file again"
        ) from None


def _opened(file: IO[bytes], packing: str) -> Any:
    """A reader of what a packed file holds."""
    if packing == "zstd":
        import pyarrow as pa  # only where such a file is read

        return pa.CompressedInputStream(pa.PythonFile(file), "zstd")
    return gzip.open(file) if packing == "gzip" else bz2.open(file) if packing == "bz2" else lzma.open(file)


def no_text(path: str | Path) -> TraceError:
    """The error for a file of blanks."""
    return TraceError(f"{path}: the file is empty (no rows); fetch or export it again")


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
