"""A workload file as plain bytes on a disk, where an engine can read it, with its digest.

A file that is neither packed nor a pipe is read where it lies; what is packed is unpacked to a temporary file first.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmsim.errors import TraceError
from llmsim.traces import files
from llmsim.traces.pipes import on_disk

_START = 1 << 12


@dataclass(slots=True)
class PlainFile:
    """`path` holds the bytes of the file called `source`; `folder` is for temporary files beside it.

    What decides who may read it: whether it has quotes, line ends of one kind, and whether it is UTF-8.
    """

    source: str
    folder: Path
    path: Path
    sha256: str = ""
    start: bytes = b""
    quotes: bool = False
    line_ends_alike: bool = True
    utf8: bool = True
    _stamp: tuple[int, ...] = ()

    def check_unchanged(self) -> None:
        """TraceError if the file was written to since its digest was taken."""
        if self._stamp != _stamp(self.path):
            raise TraceError(f"{self.source}: the file has changed while it was read; start again when it is complete")


@contextmanager
def plain_file(path: Path) -> Iterator[PlainFile]:
    """The file for one pass over its rows; TraceError if it is absent, empty, damaged or only blanks."""
    with tempfile.TemporaryDirectory(prefix="llmsim-") as name:
        # A name of our own: engines take *, ?, [ and what looks like an address in a path for more than a name.
        plain = PlainFile(source=str(path), folder=Path(name), path=Path(name) / "data")
        packed = files.packing_of(path) is not None
        if not packed:
            plain.path.symlink_to(on_disk(path).absolute())
            plain._stamp = _stamp(plain.path)
        _inspect(plain, path, plain.path if packed else None)
        if packed:
            plain._stamp = _stamp(plain.path)
        yield plain


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_size, status.st_ino


def _inspect(plain: PlainFile, path: Path, copy: Path | None) -> None:
    """Fill in what one pass over the bytes tells, and copy them if asked."""
    digest = hashlib.sha256()
    decoder = codecs.getincrementaldecoder("utf-8")()
    ends = _LineEnds()
    blank = True
    with open(os.devnull if copy is None else copy, "wb") as file:
        for data in files.chunks(path):
            digest.update(data)
            try:
                file.write(data if copy else b"")
            except OSError as error:
                raise TraceError(
                    f"{path}: does not fit {plain.folder} when unpacked ({error.strerror}); set TMPDIR to a larger disk"
                ) from None
            if len(plain.start) < _START:
                plain.start += data[:_START]
            blank = blank and not data.strip()
            plain.quotes = plain.quotes or b'"' in data
            ends.see(data)
            plain.utf8 = plain.utf8 and _decodes(decoder, data)
    if blank:
        raise files.no_text(path)
    plain.line_ends_alike = ends.alike
    plain.utf8 = plain.utf8 and _decodes(decoder, b"", final=True)
    plain.sha256 = digest.hexdigest()


class _LineEnds:
    """Which line ends a text has that is seen piece by piece."""

    def __init__(self) -> None:
        self._kinds: set[bytes] = set()
        self._held = b""

    def see(self, data: bytes) -> None:
        """The next piece; a carriage return at its end waits for what follows."""
        data = self._held + data
        self._held = b"\r" if data.endswith(b"\r") else b""
        returns = data.count(b"\r") - len(self._held)
        pairs = data.count(b"\r\n") if returns else 0
        if pairs:
            self._kinds.add(b"\r\n")
        if returns > pairs:
            self._kinds.add(b"\r")
        if data.count(b"\n") > pairs if pairs else b"\n" in data:
            self._kinds.add(b"\n")

    @property
    def alike(self) -> bool:
        """Whether all lines end in \\n, or all in \\r\\n."""
        return len(self._kinds) < 2 and b"\r" not in self._kinds and not self._held


def _decodes(decoder: codecs.IncrementalDecoder, data: bytes, final: bool = False) -> bool:
    if data.isascii() and not final and decoder.getstate()[0] == b"":
        return True
    try:
        decoder.decode(data, final)
    except UnicodeDecodeError:
        return False
    return True
