"""`transformers serve` as a process of its own, with the tiny model."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

PACKAGES = ("torch", "transformers", "tokenizers", "fastapi", "uvicorn", "openai", "aiohttp")
ROOT = Path(__file__).resolve().parents[2]


def need_packages() -> None:
    """Skip without the server's packages, unless the tests of the server are required (make test-live)."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if not missing:
        return
    said = f"{', '.join(missing)} not installed: pip install 'llmsim[serve-test]'"
    if os.environ.get("LLMSIM_SERVER_TESTS") == "required":
        pytest.fail(said)
    pytest.skip(said)


@dataclass(frozen=True)
class RealServer:
    """A running server: its address, the model it serves, its process and what it wrote."""

    url: str
    model: str
    process: subprocess.Popen[bytes]
    log: Path

    def answered(self) -> int:
        """How many requests it has begun to answer."""
        return self.log.read_text(errors="replace").count('/v1/completions HTTP/1.1" 200')

    def tail(self) -> str:
        """The last lines it wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


def offline(folder: Path) -> dict[str, str]:
    """The environment of a process that shall download nothing."""
    cache = folder / "cache"
    cache.mkdir(exist_ok=True)
    return {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(cache), "HF_HUB_CACHE": str(cache)}


def make_model(folder: Path) -> Path:
    """The tiny model, written by a process of its own."""
    model = folder / "tiny"
    command = [sys.executable, "-m", "tests.client.tiny_model", str(model)]
    subprocess.run(command, cwd=ROOT, env=offline(folder), check=True, capture_output=True, timeout=120)
    return model


@contextmanager
def serving(folder: Path, model: Path) -> Iterator[RealServer]:
    """The server on a free port; it is still loading, so let the client wait. Ended at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / f"server-{port}.log"
    code = "import sys; from transformers.cli.transformers import main; sys.exit(main())"
    options = [str(model), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", code, "serve", *options], env=offline(folder), stdout=out, stderr=subprocess.STDOUT
        )
        try:
            yield RealServer(f"http://127.0.0.1:{port}", str(model), process, log)
        finally:
            process.kill()
            process.wait()
