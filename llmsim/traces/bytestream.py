"""The decompressed bytes of a file from its beginning, hashed on the way: what `files.read_bytes` is in one piece."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from llmsim.traces import files

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER = 1 << 18
"""Bytes read at a time."""


class ByteStream(io.RawIOBase):
    """Bytes of `path`, unpacked if it is gzipped; `sha256` is the digest of those read so far.

    TraceError, when it is opened or read, in the words of `files.read_bytes`.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._digest = hashlib.sha256()
        try:
            self._file = path.open("rb")
            start = self._file.read(16)
        except OSError as error:
            raise files.unreadable(path, error) from None
        try:
            self.packed = files.is_gzip(start, path)
        except Exception:
            self._file.close()
            raise
        self._file.seek(0)
        self._data = cast("BinaryIO", gzip.GzipFile(fileobj=self._file)) if self.packed else self._file

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the decompressed bytes read so far."""
        return self._digest.hexdigest()

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer; the number of bytes, 0 at the end."""
        try:
            data = self._data.read(len(memoryview(buffer)))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise files.damaged_gzip(self.path, error) from None
        memoryview(buffer)[: len(data)] = data
        self._digest.update(data)
        return len(data)

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._data.close()
            self._file.close()
        super().close()


def first_bytes(path: Path, count: int) -> bytes:
    """The first decompressed bytes of a file; TraceError if it cannot be read."""
    with ByteStream(path) as stream:
        return stream.read(count) or b""
