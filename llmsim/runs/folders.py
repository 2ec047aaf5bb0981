"""New directories that appear complete or not at all, and never replace another."""

from __future__ import annotations

import re
import secrets
import shutil
from pathlib import Path
from types import TracebackType

from llmsim.errors import ConfigError


class NewFolder:
    """A context that gives a hidden draft directory under `out`; at its end the draft becomes `path`, or is gone.

    `out` is made if need be; `wanted` is the name, to which a number is added if it is taken. Raises ConfigError if
    `out` is no directory.
    """

    path: Path

    def __init__(self, out: str | Path, wanted: str) -> None:
        self._parent, self._wanted = Path(out), wanted

    def __enter__(self) -> Path:
        if self._parent.exists() and not self._parent.is_dir():
            raise ConfigError(f"{self._parent}: results are saved in a directory, but this is a file")
        self._parent.mkdir(parents=True, exist_ok=True)
        self._draft = self._parent / f".{self._wanted}-{secrets.token_hex(4)}"
        self._draft.mkdir()
        return self._draft

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            try:
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
