"""The workload of a run as Mooncake JSON lines: what was sent, when, and how long it was.

A run's tables keep no `hash_ids`, even where its trace file had them, so they are synthesised: unique, one for
each 512 tokens of a prompt (no prefix is shared). Readers that build prompts from them need them.
"""

from __future__ import annotations

import pandas as pd

from llmsim.errors import ConfigError
from llmsim.traces.conversion import with_something
from llmsim.traces.export import to_mooncake

COLUMNS = ["arrival_ns", "prompt_tokens", "output_tokens"]
ASKED = ["slo_class", "tbt_s", "ttft_s_target", "ttlt_s", "tier", "priority", "model"]
NO_TIER = -1


def workload_of(requests: pd.DataFrame) -> pd.DataFrame:
    """Trace table (arrival_ns, prompt_tokens, output_tokens) of all requests sent, in order of arrival, then id.

    Rejected and unfinished requests were sent, too. `output_tokens` is the length asked for, not the length that
    was reached. Raises ConfigError if the run sent nothing.
    """
    if not len(requests):
        raise ConfigError("the run sent no request, so it has no workload to export; choose another run")
    return requests.sort_values(["arrival_ns", "id"], kind="stable", ignore_index=True)[COLUMNS]


def mooncake_bytes(requests: pd.DataFrame) -> bytes:
    """Mooncake JSON lines: timestamp (ms, exact to the ns), input_length, output_length, hash_ids.

    Raises ConfigError if the run sent nothing.
    """
    return to_mooncake(workload_of(requests))


def left_out_of(requests: pd.DataFrame) -> list[str]:
    """Columns of a run's requests, with anything in them, that say what a request asked for and that Mooncake lacks."""
    named = requests["slo_class"] != "default"
    tier = requests["tier"].where(requests["tier"] != NO_TIER)
    return with_something(requests.assign(slo_class=requests["slo_class"].where(named, ""), tier=tier), ASKED)
