"""Prefix blocks of prompts: how many of a request's `hash_ids` are left when its prompt is cut."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmsim.traces.parsing import Ints

if TYPE_CHECKING:
    import pandas as pd

BLOCK_TOKENS = 512
"""Tokens of a Mooncake prefix block."""


def lists_of_ids(requests: pd.DataFrame) -> list[list[Any] | None]:
    """The hash_ids of every row of a trace table, None where it has none."""
    if "hash_ids" not in requests.columns:
        return [None] * len(requests)
    return [None if ids is None or isinstance(ids, str) else list(ids) for ids in requests["hash_ids"].tolist()]


def shortened(texts: Sequence[str], was: Ints, now: Ints) -> list[str]:
    """JSON lists of the ids of prompts of `was` tokens, for the first `now` tokens of them.

    Blocks are Mooncake's where the prompt had as many of these as ids; others (Bailian's are smaller) are as long as
    the ids share the prompt out.
    """
    return [_shortened(text, int(a), int(b)) for text, a, b in zip(texts, was, now, strict=True)]


def _shortened(text: str, was: int, now: int) -> str:
    try:
        ids = json.loads(text) if text else None
    except ValueError:
        return text
    if not isinstance(ids, list) or not ids:
        return text
    mooncake = len(ids) == blocks_of(was)
    return json.dumps(ids[: blocks_of(now) if mooncake else -(-now * len(ids) // was)])


def blocks_of(prompt_tokens: int) -> int:
    """Mooncake's blocks that a prompt fills, the last one in part."""
    return -(-prompt_tokens // BLOCK_TOKENS)
