"""New directories and files that appear complete or not at all; directories never replace another."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from llmsim.errors import ConfigError, SaveError


@contextmanager
def saving(path: str | Path) -> Iterator[None]:
    """What the system says of a failure to write, as a SaveError that names `path`."""
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
        raise SaveError(
            f"{path}: cannot be written: {why}; give --out another place, or make room and see who may write there"
        ) from error


def check_out(out: str | Path | None) -> None:
    """Make `out` and, for a moment, a file in a draft directory in it; before a run, whose results will go there.

    Raises ConfigError if `out` is no directory, SaveError if nothing can be written there.
    """
    if out is None:
        return
    try:
        with NewFolder(out, "try") as draft, saving(out):
            (draft / "try").write_bytes(bytes(1 << 12))
            raise _Written
    except _Written:
        pass


class _Written(Exception):
    """Leaves a draft that is not to be kept."""


def write_whole(path: str | Path, text: str) -> Path:
    """Write a text file, whole or not at all; its folder is made. SaveError if that fails.

    What is no plain file, as /dev/stdout, is written to and not replaced; of a link the file it leads to is replaced.
    """
    path = Path(path)
    with saving(path):
        target = path.resolve()
        if target.exists() and not target.is_file():
            path.write_text(text, encoding="utf-8")
            return path
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.parent / f".{target.name[:80]}-{secrets.token_hex(4)}"
        try:
            draft.write_text(text, encoding="utf-8")
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
    return path


class NewFolder:
    """A context that gives a hidden draft directory under `out`; at its end the draft becomes `path`, or is gone.

    `out` is made if need be; `wanted` is the name, to which a number is added if it is taken. Raises ConfigError if
    `out` is no directory, SaveError if it cannot be written to.
    """

    path: Path

    def __init__(self, out: str | Path, wanted: str) -> None:
        self._parent, self._wanted = Path(out), wanted

    def __enter__(self) -> Path:
        if self._parent.exists() and not self._parent.is_dir():
            raise ConfigError(f"{self._parent}: results are saved in a directory, but this is a file")
        with saving(self._parent):
            self._parent.mkdir(parents=True, exist_ok=True)
            self._draft = self._parent / f".{self._wanted}-{secrets.token_hex(4)}"
            self._draft.mkdir()
        return self._draft

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                with saving(self._parent):
                    self.path = self._move()
                return
            except BaseException:
                shutil.rmtree(self._draft, ignore_errors=True)
                raise
        shutil.rmtree(self._draft, ignore_errors=True)

    def _move(self) -> Path:
        """Rename the finished directory to the first free name."""
        attempt = 1
        while True:
            target = self._parent / (self._wanted if attempt == 1 else f"{self._wanted}-{attempt}")
            if not target.exists():
                try:
                    return self._draft.rename(target)
                except OSError:
                    if not target.exists():  # not a race for the name: a real failure
                        raise
            attempt += 1


def slug(name: str) -> str:
    """The name with nothing in it that a path could trip over."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80] or "run"
