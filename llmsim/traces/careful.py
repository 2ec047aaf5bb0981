"""Rows of CSV and JSON read one by one, by Python's own readers: slow, and always able to say what is wrong where.

The engine reads what is plain. What it refuses comes here, to be read or to be named; so do quoted CSV, on which
engines disagree, and the line of a row that turned out to be faulty. Both must see the same rows and the same cells.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmsim.errors import TraceError

DELIMITERS = (",", "\t", ";")
_BOM = b"\xef\xbb\xbf"
_CHUNK = 1 << 20
_LONGEST = 1 << 24
"""Characters of an entry of a list; what is longer is broken."""
_END = "\x00the end of the file\x00"
_NEXT = re.compile(r"\s*([,\]])\s*")


class Digits(str):
    """A number as a file has it, so that none of its digits is lost."""


# A trace may hold the texts of its requests, which are longer than the csv module expects of a field.
csv.field_size_limit(max(csv.field_size_limit(), min(sys.maxsize, 2**31 - 1)))


def csv_rows(path: Path, source: str, delimiter: str) -> Iterator[tuple[int, int, list[str]]]:
    """First line, last line and fields of every row, the header and rows without any text among them.

    TraceError for what is no text, and for a quote that is not closed.
    """

    def lines() -> Iterator[str]:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from file
            yield _END  # which a quote that is still open swallows

    reader = csv.reader(lines(), delimiter=delimiter)
    line = 1
    try:
        for fields in reader:
            if fields == [_END]:
                return
            if fields and fields[-1].endswith(_END):
                raise TraceError(
                    f"{source}: row {line} has a quoted field that is not read to its end, from "
                    f"{fields[-1].removesuffix(_END)[:60]!r} on; close the quote"
                )
            yield line, reader.line_num, fields
            line = reader.line_num + 1
    except UnicodeDecodeError:
        raise _not_text(path, source) from None
    except csv.Error as error:
        raise TraceError(f"{source}: row {line} cannot be split into fields ({error}); correct the row") from None


def _not_text(path: Path, source: str) -> TraceError:
    """The error that names the first line that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return TraceError(
                    f"{source}: row {number} is not text (byte {line[error.start]:#04x} is no UTF-8); give a CSV, JSON "
                    "lines or Parquet file, plain or packed"
                )
    raise AssertionError("no line of the file is other than UTF-8")


def padded(fields: list[str], width: int, line: int, source: str) -> list[str]:
    """As many fields as the header has; TraceError for a row with more."""
    if len(fields) > width:
        raise TraceError(
            f"{source}: row {line} has {len(fields)} fields where the header has {width} columns (column {width + 1}: "
            f"{fields[width]!r}); quote fields that hold a comma, or complete the header"
        )
    return fields + [""] * (width - len(fields))


def json_lines(path: Path, source: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line and object of every line that is not blank; TraceError for one that holds no object."""
    with path.open("rb") as file:
        # Lines also end at a bare carriage return.
        lines = (part for line in file for part in line.splitlines())
        for number, text in enumerate(lines, start=1):
            text = text.removeprefix(_BOM) if number == 1 else text
            if not text.strip():
                continue
            try:
                record = json.loads(text, parse_float=Digits)
            except ValueError as error:
                raise TraceError(
                    f"{source}: row {number} is not JSON ({error}): {text[:60]!r}; correct or delete the line"
                ) from None
            yield number, _object(record, f"{source}: row {number}", text[:60])


def json_array(path: Path, source: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number (from 1) and object of every entry of a list; TraceError for one that is no object, or no JSON."""
    decoder = json.JSONDecoder(parse_float=Digits)
    with path.open(encoding="utf-8-sig") as file:
        text = file.read(_CHUNK)
        at, number = text.index("[") + 1, 1
        while True:
            at += len(text[at:]) - len(text[at:].lstrip())
            if number == 1 and text[at : at + 1] == "]":
                return
            try:
                record, end = decoder.raw_decode(text, at)
                after = _NEXT.match(text, end)
                if after is None:
                    raise json.JSONDecodeError("Expecting ',' or ']'", text, end)
            except ValueError as error:
                more = file.read(_CHUNK) if len(text) - at < _LONGEST else ""
                if more:
                    text, at = text[at:] + more, 0
                    continue
                raise TraceError(
                    f"{source}: row {number} (entry of the list) is not JSON ({error}): {text[at : at + 60]!r}; "
                    "correct or delete the entry"
                ) from None
            yield number, _object(record, f"{source}: row {number} (entry of the list)", text[at : at + 60])
            if after[1] == "]":
                return
            at, number = after.end(), number + 1


def _object(record: Any, where: str, text: str | bytes) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise TraceError(f"{where} is not a JSON object: {text!r}; write one object a line")
    return record


def json_names(record: dict[str, Any], above: str = "") -> list[str]:
    """Names of the fields of an object, those inside of others with dots: usage.prompt_tokens."""
    names = []
    for name, value in record.items():
        names += json_names(value, f"{above}{name}.") if isinstance(value, dict) and value else [f"{above}{name}"]
    return names


def json_cell(record: dict[str, Any], path: Sequence[str]) -> str:
    """Text of the value at a path of keys, '' for null and for what is not there."""
    value: Any = record
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, str):
        # What JSON calls text may hold half a character, which nothing can write.
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if value is None:
        return ""
    if isinstance(value, list | dict | bool):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return str(value)
