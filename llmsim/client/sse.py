"""Server-sent events out of bytes that arrive in any pieces, as the WHATWG specification describes the stream."""

from __future__ import annotations


class SseDecoder:
    """Give it bytes as they arrive; it gives back the data of every event that they complete.

    Lines end with LF, CR or CRLF, also where a CRLF is cut in two. Comments and fields other than `data` are skipped,
    several `data` lines of an event are joined with LF. Never fails: what the data hold is the caller's concern.
    """

    def __init__(self) -> None:
        self._tail = b""
        self._data: list[bytes] = []
        self._after_cr = False
        self._at_start = True

    def feed(self, piece: bytes) -> list[bytes]:
        """Data of the events that `piece` completes, in order; often one, or none."""
        if self._after_cr and piece.startswith(b"\n"):  # the second half of a CRLF whose first ended the last piece
            piece = piece[1:]
            self._after_cr = False
        if not piece:
            return []
        self._after_cr = piece.endswith(b"\r")
        lines = (self._tail + piece).splitlines(keepends=True)
        self._tail = b"" if lines[-1].endswith((b"\n", b"\r")) else lines.pop()
        return [data for line in lines if (data := self._take(line.rstrip(b"\r\n"))) is not None]

    def finish(self) -> list[bytes]:
        """What is left at the end of the stream: an event that no blank line closed (some servers end with one)."""
        last = self._take(self._tail) if self._tail else None
        self._tail = b""
        closed = self._take(b"")
        return [data for data in (last, closed) if data is not None]

    def _take(self, line: bytes) -> bytes | None:
        """One line without its end; the event's data if it is the blank line that closes one."""
        if self._at_start:
            line = line.removeprefix(b"\xef\xbb\xbf")
            self._at_start = False
        if not line:
            data, self._data = self._data, []
            return b"\n".join(data) if data else None
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value[1:] if value.startswith(b" ") else value)
        return None
