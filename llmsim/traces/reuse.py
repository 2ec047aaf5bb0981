"""How much of a trace's prompts a prefix cache could find, by the hash_ids of its rows."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

from llmsim.core.prefix.infinite import InfiniteCache
from llmsim.errors import ConfigError
from llmsim.traces.contents import RowContents
from llmsim.traces.formats import named
from llmsim.traces.selection import open_source
from llmsim.traces.twins import Twin

if TYPE_CHECKING:
    import pandas as pd

    from llmsim.traces.schema import Trace
    from llmsim.traces.spec import WorkloadSpec


def reuse_facts(trace: Trace, hash_block_size: int | None = None) -> dict[str, Any] | None:
    """Hit rates of an infinite cache of blocks of `hash_block_size` tokens (None: as the ids themselves have it), rows
    in order; None for a trace without hash_ids. TraceError for ids that do not fit the prompts, ConfigError where no
    single block size does."""
    table = trace.requests
    if "hash_ids" not in table.columns or not table["hash_ids"].notna().any():
        if hash_block_size is not None:
            raise ConfigError(f"{trace.source} has no hash_ids, for which --hash-block-size is; leave it out")
        return None
    unit = hash_block_size or block_size_of(table, trace.source)
    prompts = table["prompt_tokens"].tolist()
    cache = InfiniteCache(unit)
    for content, tokens in zip(
        RowContents(unit, trace.source, cut=trace.clipped > 0).of(table, range(len(table)), prompts),
        prompts,
        strict=True,
    ):
        cache.add(content, tokens)
    return {
        "hash_block_size": unit,
        "cached_tokens": cache.cached_tokens,
        "token_hit_rate": cache.token_hit_rate,
        "request_hit_rate": cache.request_hit_rate,
    }


def block_size_of(table: pd.DataFrame, source: str) -> int:
    """The block size that the numbers of ids allow: a partial last block may have one or not.

    Of several the power of two; ConfigError if there is none, or more than one.
    """
    above, below = 0.0, inf
    for hash_ids, tokens in zip(table["hash_ids"].tolist(), table["prompt_tokens"].tolist(), strict=True):
        if isinstance(hash_ids, list):
            count = len(hash_ids)
            above = max(above, tokens / (count + 1))
            below = min(below, tokens / (count - 1) if count > 1 else inf)
    powers = [1 << at for at in range(20) if above < 1 << at < below]
    if len(powers) != 1:
        allowed = f"between {above:.4g} and {below:.4g} tokens" if above < below else "of no one size"
        raise ConfigError(
            f"{source}: the block size of its hash_ids cannot be told from their numbers, which are of blocks "
            f"{allowed}; give --hash-block-size"
        )
    return powers[0]


def with_bad_answers(spec: WorkloadSpec, trace: Trace) -> Trace:
    """The trace with the rows that were left out for their answers alone: their prompts are in the cache, too."""
    if not trace.dropped or "hash_ids" not in trace.requests.columns:
        return trace
    prompt = spec.columns["prompt_tokens"] if spec.columns else named(trace.format).prompt
    asked = replace(spec, format=None, columns={"prompt_tokens": prompt, "output_tokens": prompt})
    again = open_source(asked, None, hash_ids=True)
    assert again is not None
    assert not isinstance(again, Twin)
    return again
