"""What a real executor runs in one iteration: rows of tokens with their block tables, packed into ragged arrays.

Plain numpy, shapes as FlashInfer and vLLM's runner take them, so that every attention backend reads the same step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


class Row(NamedTuple):
    """One sequence of an iteration.

    `tokens` (queries,) are the ids to compute, the first of them at position `start`; `pages` is the sequence's block
    table, long enough for all its keys. The row attends to start + queries keys, causally. Padding of a rectangular
    batch: `hidden` keys after the last query are read but must not be attended to; the last `unread` queries are
    computed but nobody wants their result.
    """

    tokens: Int64
    start: int
    pages: Int32
    hidden: int = 0
    unread: int = 0

    @property
    def keys(self) -> int:
        """Keys that attention reads, hidden ones included."""
        return self.start + len(self.tokens) + self.hidden


@dataclass(frozen=True, slots=True)
class Step:
    """Rows packed: T query tokens of B rows, P pages in all.

    token_ids, positions, slots (T,); a slot is page * page_size + offset, where the token's key and value go.
    query_starts (B + 1,) and page_starts (B + 1,) delimit the rows; pages (P,) holds just the pages that a row's keys
    fill; keys, hidden, last_page_len (B,); last (B,) is the index among T of the query whose logits are wanted.
    `decodes` leading rows have one query and nothing hidden.
    """

    page_size: int
    token_ids: Int64
    positions: Int64
    slots: Int64
    query_starts: Int32
    keys: Int32
    hidden: Int32
    page_starts: Int32
    pages: Int32
    last_page_len: Int32
    last: Int64
    decodes: int

    @property
    def rows(self) -> int:
        """Sequences in the step."""
        return len(self.keys)

    @classmethod
    def pack(cls, rows: Sequence[Row], page_size: int) -> Step:
        """Pack rows; decodes should come first, as only the leading ones are counted in `decodes`."""
        queries = np.array([len(row.tokens) for row in rows], dtype=np.int32)
        starts = np.array([row.start for row in rows], dtype=np.int64)
        hidden = np.array([row.hidden for row in rows], dtype=np.int32)
        keys = (starts + queries + hidden).astype(np.int32)
        used = -(-keys // page_size)
        query_starts = _delimiters(queries)
        row_of = np.repeat(np.arange(len(rows)), queries)
        positions = starts[row_of] + np.arange(query_starts[-1]) - query_starts[row_of]
        page_starts = _delimiters(used)
        pages = np.concatenate([row.pages[:n] for row, n in zip(rows, used, strict=True)]).astype(np.int32, copy=False)
        page_of = pages[page_starts[row_of] + positions // page_size].astype(np.int64)
        single = (queries == 1) & (hidden == 0)
        return cls(
            page_size=page_size,
            token_ids=np.concatenate([row.tokens for row in rows]),
            positions=positions,
            slots=page_of * page_size + positions % page_size,
            query_starts=query_starts,
            keys=keys,
            hidden=hidden,
            page_starts=page_starts,
            pages=pages,
            last_page_len=(keys - (used - 1) * page_size).astype(np.int32),
            last=query_starts[1:].astype(np.int64) - 1 - np.array([row.unread for row in rows], dtype=np.int64),
            decodes=len(rows) if single.all() else int(single.argmin()),
        )


def _delimiters(counts: Int32) -> Int32:
    """Where each of consecutive groups starts, and where the last ends."""
    return np.concatenate([np.zeros(1, dtype=np.int32), np.cumsum(counts, dtype=np.int32)])
