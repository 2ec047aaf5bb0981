"""The public workload files that llmsim knows: where they are, their digest, and under which licence.

Digests are of the decompressed files. llmsim ships no copy of them, only twins made from their quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmsim.errors import ConfigError, nearest

_AZURE = "https://raw.githubusercontent.com/Azure/AzurePublicDataset/master/data/"
_AZURE_CREDIT = "Azure/AzurePublicDataset, LLM inference trace 2023"
_MOONCAKE = "https://raw.githubusercontent.com/kvcache-ai/Mooncake/main/FAST25-release/traces/"
_SLAI = "https://raw.githubusercontent.com/agrimUT/SLAI/HEAD/data/processed_traces/"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicFile:
    """A file that `llmsim trace fetch NAME` downloads; `sha256` is of its decompressed content."""

    name: str
    url: str
    sha256: str
    rows: int
    licence: str
    credit: str
    note: str = ""

    @property
    def file_name(self) -> str:
        """Last part of the address."""
        return self.url.rsplit("/", 1)[1]


_FILES = (
    PublicFile(
        name="azure-code",
        url=_AZURE + "AzureLLMInferenceTrace_code.csv",
        sha256="54e9a6d2a4bd06ba1e060304b900abbc74cbea53de96506e60fe5bb4f2277fb6",
        rows=8819,
        licence="CC-BY-4.0",
        credit=_AZURE_CREDIT,
    ),
    PublicFile(
        name="azure-conv",
        url=_AZURE + "AzureLLMInferenceTrace_conv.csv",
        sha256="2f1e5b666d4e3055fdbba98598ce2ec307767b9064e03e2fa46676dbcc7d0bf8",
        rows=19366,
        licence="CC-BY-4.0",
        credit=_AZURE_CREDIT,
    ),
    PublicFile(
        name="mooncake-conversation",
        url=_MOONCAKE + "conversation_trace.jsonl",
        sha256="b8cbb061a85206d729d91cdc2981f43c9e0d99209dce588d3af5f7934408b9df",
        rows=12031,
        licence="Apache-2.0",
        credit="kvcache-ai/Mooncake, FAST'25 release",
    ),
    PublicFile(
        name="sharegpt4",
        url=_SLAI + "sharegpt_8k_filtered_stats_llama2_tokenizer.csv",
        sha256="6d6c296302a853e2669a674a96f269283e60c57e60363bd450588a1066919f9f",
        rows=30731,
        licence="Apache-2.0",
        credit="agrimUT/SLAI, ShareGPT4 lengths (Llama-2 tokenizer, at most 8k tokens)",
        note="lengths of the Mistral-7B study; there are no arrivals",
    ),
)
PUBLIC_FILES = {file.name: file for file in _FILES}
BY_DIGEST = {file.sha256: file for file in _FILES}


def public_file(name: str) -> PublicFile:
    """The public file called `name`; ConfigError with a suggestion otherwise."""
    try:
        return PUBLIC_FILES[name]
    except KeyError:
        raise ConfigError(f"no public trace is called {name!r}.{nearest(name, PUBLIC_FILES)}") from None
