"""Download the public workload files; what arrives is checked against its SHA-256 before it gets its name."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from pathlib import Path

from llmsim.errors import TraceError
from llmsim.traces import files
from llmsim.traces.sources import PublicFile

TIMEOUT_S = 10.0


def fetch(file: PublicFile, folder: str | Path, timeout_s: float = TIMEOUT_S) -> tuple[Path, bool]:
    """Path of the file in `folder`, and whether it was downloaded now (False: it was there, with the right
    digest).

    TraceError without network, for an address that does not answer, or for content of another digest; then no
    file, whole or partial, is left behind, and a file of that name that was there is left as it was.
    """
    target = Path(folder) / file.file_name
    if target.is_file() and files.sha256(target.read_bytes()) == file.sha256:
        return target, False
    data = _download(file, target, timeout_s)
    got = files.sha256(data)
    if got != file.sha256:
        raise TraceError(
            f"{file.url}: SHA-256 is {got}, not the known {file.sha256}; the file changed or was cut on the "
            "way: try again, or take it by hand and read it with its path"
        )
    return files.write_bytes(target, data), True


def _download(file: PublicFile, target: Path, timeout_s: float) -> bytes:
    """Content at the file's address; TraceError with one line for every way that can fail."""
    by_hand = f"connect to the network, or copy the file to {target} by hand"
    try:
        with urllib.request.urlopen(file.url, timeout=timeout_s) as response:
            data: bytes = response.read()
            return data
    except urllib.error.HTTPError as error:
        raise TraceError(f"{file.url}: the server answered {error.code} {error.reason}; {by_hand}") from None
    except urllib.error.URLError as error:
        raise TraceError(f"{file.url}: no answer ({error.reason}); {by_hand}") from None
    except (http.client.HTTPException, OSError) as error:
        raise TraceError(
            f"{file.url}: the download broke off ({error or type(error).__name__}); {by_hand}"
        ) from None
