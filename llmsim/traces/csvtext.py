"""Comma-separated text as cells, whole or in blocks of records.

The whole file and a block of it go through the same parser. A block is put under the header and the first row of its
file, because these decide how many fields a row may have; so it is read as it would be inside the whole.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice

import pandas as pd

from llmsim.errors import TraceError

_BOM = b"\xef\xbb\xbf"


def decode(data: bytes, source: str, above: int = 0) -> str:
    """Text of UTF-8 bytes that begin after `above` lines of the file; at its beginning a byte order mark may stand."""
    try:
        return data.decode("utf-8" if above else "utf-8-sig")
    except UnicodeDecodeError as error:
        row = above + data.count(b"\n", 0, error.start) + 1
        raise TraceError(
            f"{source}: row {row} is not text (byte {data[error.start]:#04x} is no UTF-8); give a CSV, JSON "
            "lines or Parquet file, plain or gzipped"
        ) from None


def read_cells(text: str) -> pd.DataFrame | None:
    """Text cells under the stripped names of the header, blank lines included; None for a row with too many fields."""
    try:
        with warnings.catch_warnings():
            # pandas only warns of a first row that is longer than the header, and then cuts it.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            cells = pd.read_csv(io.StringIO(text), dtype=str, na_filter=False, skip_blank_lines=False, index_col=False)
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError):
        return None
    cells.columns = [str(c).strip() for c in cells.columns]
    # A row with fewer fields than the header ends in NaN, although no other empty cell does.
    return cells.fillna("")


def check_header(text: str, source: str) -> None:
    """TraceError for a column that the header names twice."""
    names = next(csv.reader(io.StringIO(text)), [])
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise TraceError(f"{source}: row 1 (the header) has column {twice!r} twice; rename one of them")


def ragged(lines: Iterable[str], source: str, above: int) -> TraceError:
    """The error that names the first row with more fields than the header; `lines` begin at the header."""
    reader = csv.reader(lines)
    width = len(next(reader, []))
    for row in reader:
        if len(row) > width:
            return TraceError(
                f"{source}: row {reader.line_num + above} has {len(row)} fields where the header has "
                f"{width} columns (column {width + 1}: {row[width]!r}); quote fields that hold a comma, or "
                "complete the header"
            )
    return TraceError(f"{source}: row 1 is not the header of a comma-separated file; write it with commas and a header")


def text_blocks(
    lines: Iterator[bytes], source: str, block: int, again: Callable[[], Iterator[bytes]]
) -> Iterator[tuple[pd.DataFrame, int]]:
    """Cells of at most `block` records each, blank lines included, and the line of the first of them.

    `again` begins the lines anew, to name a row with too many fields by the same words as in a whole file.
    """
    above, first = _first_line(lines)
    lines = chain([first], lines)
    header = _records(lines, 1, source)
    seen = above + header.count(b"\n")
    top = decode(header, source).lstrip("\r\n")
    check_header(top, source)
    opening = _records(lines, 1, source)
    piece = opening + _records(lines, block - 1, source)
    line, prefix = 2 + above, 0
    while piece:
        cells = read_cells(top + decode(piece, source, seen))
        if cells is None:
            raise ragged(_body(again(), source, above), source, above)
        for start in range(prefix, len(cells), block):  # one turn, but where bare carriage returns end rows, too
            yield cells.iloc[start : start + block].reset_index(drop=True), line + start - prefix
        line += len(cells) - prefix
        if not prefix:
            top += decode(opening, source, seen)
            opened = read_cells(top)
            prefix = 1 if opened is None else len(opened)  # more than 1 if a bare carriage return is in it
        seen += piece.count(b"\n")
        piece = _records(lines, block, source)


def _first_line(lines: Iterator[bytes]) -> tuple[int, bytes]:
    """How many empty lines the file begins with, and the first that is not."""
    above = 0
    for line in lines:
        if line.removeprefix(_BOM if not above else b"").strip(b"\r\n"):
            return above, line
        above += 1
    return above, b""


def _body(lines: Iterator[bytes], source: str, above: int) -> Iterator[str]:
    """Lines of text from the header on."""
    for number, line in enumerate(lines):
        if number >= above:
            yield decode(line, source, number)


def _records(lines: Iterator[bytes], count: int, source: str) -> bytes:
    """The next `count` records: lines, or several lines where a quoted field holds line ends."""
    piece = list(islice(lines, count))
    if not any(b'"' in line for line in piece):
        return b"".join(piece)
    taken: list[bytes] = []

    def following() -> Iterator[str]:
        for line in chain(piece, lines):
            taken.append(line)
            # The csv module stumbles over a bare carriage return, which ends a field as a comma does.
            yield line.decode("utf-8", "replace").replace("\r", ",")

    try:
        for _ in islice(csv.reader(following()), count):
            pass
    except csv.Error as error:
        raise TraceError(
            f"{source}: a quoted field is not read to its end ({error}), near {taken[0][:60]!r}; close the quote"
        ) from None
    return b"".join(taken)
