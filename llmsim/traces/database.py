"""DuckDB, which reads and sorts workload files: imported on first use, in bounded memory, with all cells as text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmsim.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

MEMORY = "1GiB"
"""What the engine may hold if nothing else is asked for; beyond it, it works on disk (TMPDIR)."""
_LEAST_ROWS = 8192
_LEAST_BYTES = 64 * 2**20
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([KMGT]i?B)", re.IGNORECASE)
_PREFIXES = " KMGT"
_EMPTY = "''"
_NO_FIELD = "\x01\x02"


class Refused(Exception):
    """What the engine cannot read; it does not say in which row, or not in our words."""


def check_memory(memory: str) -> None:
    """ConfigError for a size that is none, or below what the engine needs."""
    match = _SIZE.fullmatch(memory) if isinstance(memory, str) else None
    if match is None:
        raise ConfigError(f"memory must be a size such as 512MiB or 2GiB but got {memory!r}")
    base = 1024 if "i" in match[2].lower() else 1000
    if float(match[1]) * base ** _PREFIXES.index(match[2][0].upper()) < _LEAST_BYTES:
        raise ConfigError(f"memory must be at least 64MiB, which the engine needs for itself, but got {memory!r}")


@contextmanager
def connect(folder: Path, memory: str | None) -> Iterator[DuckDBPyConnection]:
    """A connection that puts what does not fit `memory`, its tables too, into `folder`."""
    import duckdb  # only where a file is read

    config: dict[str, Any] = {
        "memory_limit": memory or MEMORY,
        "temp_directory": str(folder / "spill"),
        "threads": 2,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    with duckdb.connect(config=config) as connection:
        yield _silent(connection)


def second(connection: DuckDBPyConnection) -> DuckDBPyConnection:
    """Another connection to the same tables, for while the first has an open result."""
    return _silent(connection.cursor())


def _silent(connection: DuckDBPyConnection) -> DuckDBPyConnection:
    # A progress bar would stand among what a command prints. A notebook without ipywidgets has none to switch off.
    ((shown,),) = connection.execute("SELECT current_setting('enable_progress_bar')").fetchall()
    if shown:
        connection.execute("SET enable_progress_bar = false")
    return connection


def batches(connection: DuckDBPyConnection, query: str, size: int) -> Iterator[pa.RecordBatch]:
    """Rows of a query, in its order, at most `size` at a time.

    Refused for a file that the engine cannot read, ConfigError if its memory does not do.
    """
    import duckdb

    try:
        for batch in connection.sql(query).to_arrow_reader(max(size, _LEAST_ROWS)):
            for start in range(0, batch.num_rows, size):
                yield batch.slice(start, size)
    except (duckdb.Error, OSError, ValueError) as error:  # OSError and ValueError are what Arrow makes of the engine's
        said = _line(error)
        if said.startswith("Out of Memory"):
            raise ConfigError(f"memory: the trace cannot be read within it ({said}); allow more") from None
        if "No space left" in said:
            raise ConfigError(f"the trace does not fit the folder for temporary files ({said}); set TMPDIR") from None
        raise Refused(said) from None


def columns(connection: DuckDBPyConnection, query: str) -> list[str]:
    """Names of the columns of a query; Refused as from `batches`."""
    import duckdb

    try:
        return list(connection.sql(query).columns)
    except duckdb.Error as error:
        raise Refused(_line(error)) from None


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def literal(text: str) -> str:
    """A text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def csv_query(path: Path, delimiter: str, width: int, skip: int, wanted: Sequence[int]) -> str:
    """The cells of plain CSV (no quotes, one kind of line end) below `skip` lines, less rows without any text.

    Fields that a row lacks are empty. `odd` marks a row with one field too many; a row with more is refused, and so is
    what is no UTF-8.
    """
    names = [f"c{i}" for i in range(width + 1)]
    types = ", ".join(f"'{name}': 'VARCHAR'" for name in names)
    cells = [f"coalesce(c{i}, '') AS c{i}" for i in wanted]
    odd = f"{names[-1]} IS NOT NULL"
    some_text = f"coalesce({', '.join(f'nullif({name}, {_EMPTY})' for name in names)}) IS NOT NULL"
    # An empty field is no null (nullstr is what no file holds), so that it differs from one that is not there.
    return (
        f"SELECT {', '.join([*cells, f'{odd} AS odd'])} FROM read_csv({literal(str(path))}, auto_detect=false, "
        f"compression='none', header=false, skip={skip}, delim={literal(delimiter)}, quote='', escape='', comment='', "
        f"columns={{{types}}}, nullstr='{_NO_FIELD}', null_padding=true, strict_mode=true) WHERE {some_text} OR {odd}"
    )


def json_query(path: Path, array: bool, pointers: Sequence[str]) -> str:
    """Texts at these places (JSON pointers) of each object, and `odd`: whether a row is to be read carefully.

    It is if it may not be strict JSON (the engine lets commas before a bracket and words such as NaN pass), and if a
    number with a fraction, which went through a float, does not stand in the text of the row under its name; otherwise
    its digits are taken from there.
    """
    cells, lost = [], []
    for i, pointer in enumerate(pointers):
        key = pointer.rpartition("/")[2].replace("~1", "/").replace("~0", "~")
        digits = literal(f'"{re.escape(key)}"' + r'\s*:\s*"?(-?[0-9][0-9.eE+-]*)')
        text, raw = f"found[{i + 1}]", f"regexp_extract(json, {digits}, 1)"
        number, fraction = f"try_cast({text} AS DOUBLE)", f"(contains({text}, '.') OR contains({text}, 'e'))"
        same = f"coalesce(try_cast({raw} AS DOUBLE) = {number}, false)"
        cells.append(f"coalesce(CASE WHEN {fraction} THEN CASE WHEN {same} THEN {raw} ELSE {text} END ELSE {text} END, "
                     f"'') AS c{i}")  # fmt: skip
        lost.append(f"CASE WHEN {fraction} THEN {number} IS NOT NULL AND NOT {same} ELSE false END")
    words = " OR ".join(f"contains(json, '{word}')" for word in ("nan", "NaN", "NAN", "inf", "Inf", "INF"))
    lax = r"regexp_matches(json, ',\s*[}\]]')"
    named = rf"CASE WHEN {words} THEN regexp_matches(json, '[:\[,]\s*[-+]?(?i:nan|inf)') ELSE false END"
    odd = f"(NOT starts_with(json, '{{') OR {lax} OR {named} OR {' OR '.join(lost)})"
    places = ", ".join(map(literal, pointers))
    return (
        f"SELECT {', '.join(cells)}, {odd} AS odd FROM (SELECT json, json_extract_string(json, [{places}]) AS found "
        f"FROM read_json_objects({literal(str(path))}, format='{'array' if array else 'newline_delimited'}', "
        "compression='none'))"
    )


def parquet_query(path: Path, wanted: Sequence[str] | None = None) -> str:
    """The cells of a Parquet file as text, lists as JSON; None: all columns as they are."""
    source = f"read_parquet({literal(str(path))})"
    if wanted is None:
        return f"SELECT * FROM {source}"
    cells = []
    for i, name in enumerate(wanted):
        quoted = '"' + name.replace('"', '""') + '"'
        text = f"to_json({quoted})" if name == "hash_ids" else quoted
        cells.append(f"coalesce({text}::VARCHAR, '') AS c{i}")
    return f"SELECT {', '.join(cells)} FROM {source}"
