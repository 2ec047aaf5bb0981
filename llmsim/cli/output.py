"""stdout of the command line: a reader that leaves ends it quietly, a disk that is full is an error."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from llmsim.errors import SaveError


@contextmanager
def written_out() -> Iterator[None]:
    """At its end, what the block printed has been written, or this says why not.

    A reader that left (head, less) ends the block quietly, with code 0. Raises SaveError for a full disk or a closed
    stdout, which is known before the block begins; an error of the block's own is raised as it is.
    """
    if sys.stderr is None:  # closed; print would take stdout in its place
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is None:
        raise SaveError("stdout is closed, so nothing could be shown; open it, or send it to a file: > FILE")
    plain = sys.stdout
    sys.stdout = watched = _Watched(plain)
    try:
        yield
    except BaseException as error:
        trouble = watched.finish()
        done = isinstance(error, SystemExit) and not error.code
        if trouble is None or not (done or error is trouble or error.__context__ is trouble):
            if trouble is not None and trouble.errno != errno.EPIPE:
                print(f"error: {_cannot(trouble)}", file=sys.stderr)
            raise
    finally:
        sys.stdout = plain
    trouble = watched.finish()
    if trouble is not None:
        raise SystemExit(0) if trouble.errno == errno.EPIPE else _cannot(trouble)


class _Watched:
    """A stream that remembers how writing to it failed first: the error alone does not say what it was of."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.trouble: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._watch():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._watch():
            self._stream.flush()

    def finish(self) -> OSError | None:
        """Write what is buffered; returns what went wrong, now or before."""
        with suppress(OSError):
            self.flush()
        if self.trouble is not None:  # Python would try again at exit, and complain: let that go nowhere
            with suppress(OSError, ValueError):  # a stream without a descriptor, in a notebook, holds nothing back
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
                self._stream.flush()
        return self.trouble

    @contextmanager
    def _watch(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.trouble = self.trouble or error
            raise


def _cannot(error: OSError) -> SaveError:
    return SaveError(f"stdout cannot be written: {error.strerror or error}; make room, or send it elsewhere: > FILE")
