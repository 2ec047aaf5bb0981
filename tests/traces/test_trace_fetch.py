"""A download is whole and right, or there is no file; nothing here needs a network."""

from __future__ import annotations

import hashlib
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from llmsim.errors import ConfigError, TraceError
from llmsim.traces.fetch import fetch
from llmsim.traces.files import read_bytes, sha256
from llmsim.traces.sources import PUBLIC_FILES, PublicFile, public_file
from tests.traces.conftest import AZURE


@pytest.fixture
def served(tmp_path: Path) -> PublicFile:
    """A public file that lies in a local folder."""
    origin = tmp_path / "origin"
    origin.mkdir()
    (origin / "trace.csv").write_text(AZURE)
    return replace(
        public_file("azure-conv"),
        url=(origin / "trace.csv").as_uri(),
        sha256=hashlib.sha256(AZURE.encode()).hexdigest(),
    )


def test_a_file_is_downloaded_once(served: PublicFile, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    path, new = fetch(served, out)
    assert path == out / "trace.csv"
    assert path.read_text() == AZURE
    assert new
    assert fetch(served, out) == (path, False)
    assert [p.name for p in out.iterdir()] == ["trace.csv"]


def test_other_content_is_refused_and_leaves_no_file(served: PublicFile, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(TraceError, match=f"SHA-256 is {served.sha256}, not the known 0000"):
        fetch(replace(served, sha256="0000"), out)
    assert not out.exists()
    out.mkdir()
    (out / "trace.csv").write_text("older")
    with pytest.raises(TraceError, match="SHA-256"):
        fetch(replace(served, sha256="0000"), out)
    assert (out / "trace.csv").read_text() == "older"


def test_no_network_is_one_line_with_a_remedy(served: PublicFile, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/trace.csv"
        with pytest.raises(
            TraceError, match=r"no answer .*; connect to the network, or copy the file to"
        ) as caught:
            fetch(replace(served, url=url), tmp_path / "out", timeout_s=2)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no public trace is called 'azure-chat'\. Did you mean"):
        public_file("azure-chat")


def test_known_digests_are_those_of_the_real_files(shared: Path) -> None:
    copies = {
        "azure-code": "AzureLLMInferenceTrace_code.csv.gz",
        "azure-conv": "AzureLLMInferenceTrace_conv.csv.gz",
        "mooncake-conversation": "mooncake_conversation_trace.jsonl.gz",
        "sharegpt4": "sharegpt4_8k_llama2_tokenizer_lengths.csv.gz",
    }
    assert set(copies) == set(PUBLIC_FILES)
    for name, copy in copies.items():
        assert sha256(read_bytes(shared / copy)) == PUBLIC_FILES[name].sha256
