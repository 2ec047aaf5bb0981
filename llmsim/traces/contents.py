"""hash_ids of a trace as contents of requests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmsim.core.content import Content, Segment, Stream, from_hash_ids
from llmsim.errors import ConfigError, TraceError

if TYPE_CHECKING:
    import pandas as pd


class HashStreams:
    """Puts ids that have always followed each other together, so that a prompt is a few streams and not a block each.

    The ids that a prompt is the first to have are one stream; a later prompt that leaves it half-way ends its segment
    there. So ids are to be chained: equal ones have equal ones before them. One that turns up elsewhere is a
    stream by itself, which those share that have the same before it.
    """

    def __init__(self, unit: int) -> None:
        self.unit = unit
        self._place: dict[Stream, tuple[Stream, int]] = {}
        """The stream and the block in it, by id."""

    def content(self, hash_ids: Sequence[int], prompt_tokens: int, where: str, *, cut: bool = False) -> Content:
        """The content of a prompt; with `cut` ids past its end are left out, as it has been shortened."""
        if cut:
            hash_ids = hash_ids[: -(-prompt_tokens // self.unit)]
        blocks = from_hash_ids(hash_ids, prompt_tokens, self.unit, where=where).prompt
        segments: list[Segment] = []
        fresh = False  # the last segment is of ids that nobody had before
        for hash_id, tokens in blocks:
            stream, length = segments[-1] if segments else ("", 0)
            place = self._place.get(hash_id)
            if place is None and fresh:
                self._place[hash_id] = stream, length // self.unit
                segments[-1] = stream, length + tokens
            elif place is None:
                fresh = True
                self._place[hash_id] = hash_id, 0
                segments.append((hash_id, tokens))
            else:
                fresh = False
                if place == (stream, length // self.unit):
                    segments[-1] = stream, length + tokens
                else:  # from its beginning; or it has followed on something else so far
                    segments.append((place[0] if not place[1] else f"alone {hash_id}", tokens))
        return Content(tuple(segments), None, self.unit)


def json_value(text: str) -> object:
    """The JSON value that a cell holds, its text if it holds none, None if it is empty."""
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


class RowContents:
    """Contents of the rows of a trace, table by table; `cut`: prompts may have been shortened to the model's limit."""

    def __init__(self, unit: int, source: str, *, cut: bool) -> None:
        self._streams = HashStreams(unit)
        self._source = source
        self._cut = cut
        self._before = 0

    def of(self, table: pd.DataFrame, rows: Sequence[int], prompts: Sequence[int]) -> list[Content | None]:
        """Those of these rows of the next table, whose prompts have so many tokens; None where a row has no ids.

        TraceError for a table without hash_ids, or for ids that are no list of whole numbers or do not fit the prompt.
        """
        if "hash_ids" not in table.columns:
            raise TraceError(
                f"{self._source} has no hash_ids, which workload.hash_block_size={self._streams.unit} is for; leave it "
                "out"
            )
        column = table["hash_ids"].tolist()
        made = [self._content(column[row], tokens, row) for row, tokens in zip(rows, prompts, strict=True)]
        self._before += len(table)
        return made

    def _content(self, hash_ids: object, tokens: int, row: int) -> Content | None:
        where = f"{self._source}: row {self._before + row + 1}, hash_ids"
        if isinstance(hash_ids, str):
            hash_ids = json_value(hash_ids)
        if hash_ids is None:
            return None
        if not isinstance(hash_ids, list) or not all(isinstance(one, int) for one in hash_ids):
            raise TraceError(f"{where}: must be a list of whole numbers but got {str(hash_ids)[:80]!r}")
        try:
            return self._streams.content(hash_ids, tokens, where, cut=self._cut)
        except ConfigError as error:
            raise TraceError(f"{error} (workload.hash_block_size, --hash-block-size)") from error
