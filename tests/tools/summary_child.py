"""The child of compare_summaries.py: serves specs with the llmsim on PYTHONPATH, one JSON line a spec.

    PYTHONPATH=TREE python summary_child.py TREE SPECS OUT FIRST STEP

Every STEPth spec from FIRST on; results go to OUT/records-FIRST.jsonl, run directories to OUT/<spec>/. Of llmsim only
public names and the command line are used, so that it serves trees whose modules lie elsewhere.
"""

from __future__ import annotations

import hashlib
import io
import json
import runpy
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
from summary_specs import Drawn, read_index

if TYPE_CHECKING:
    import pandas as pd

    from llmsim import Result

LIMIT_S = 60
"""Seconds that one spec may take; longer counts as an error."""
FEW_VALUES = 40
"""Different latencies that a stream of few values keeps; the percentiles of more are estimated."""
TABLES = ("requests", "iterations", "token_ranges")
FACTS = ("config", "seed", "workload")
"""What of a manifest depends on the run alone. Summaries name the calibrations, whose files may gain a source."""


class TooLong(BaseException):
    """A spec took more than LIMIT_S seconds; no Exception, so that nobody on the way catches it."""


def main(tree: Path, specs: Path, out: Path, first: int, step: int) -> None:
    """Serve them; SystemExit if the llmsim that Python finds is not the one of the tree."""
    import llmsim

    if not Path(llmsim.__file__).is_relative_to(tree):
        raise SystemExit(f"llmsim should come from {tree} but comes from {llmsim.__file__}")
    signal.signal(signal.SIGALRM, _too_long)
    with open(out / f"records-{first}.jsonl", "w", encoding="utf-8") as file:
        for drawn in read_index(specs)[first::step]:
            began = perf_counter()
            record = json.dumps(served(drawn, out / Path(drawn.file).stem))
            for path, word in ((out, "<out>"), (tree, "<tree>")):
                record = record.replace(str(path), word)
            seconds = round(perf_counter() - began, 3)
            file.write(json.dumps({"file": drawn.file, "seconds": seconds, "record": json.loads(record)}) + "\n")
            file.flush()


def served(drawn: Drawn, out: Path) -> dict[str, Any]:
    """What a spec gives: `error` (kind and text, None if it ran), `printed` by the command, and `runs`."""
    record: dict[str, Any] = {"error": None, "printed": {}, "runs": []}
    signal.alarm(LIMIT_S)
    try:
        if drawn.way.startswith("command"):
            record["printed"] = _command(drawn, out)
            if record["printed"]["code"] != 0:
                record["error"] = record["printed"]["stderr"].strip()
            record["runs"] = [_of_folder(folder) for folder in _folders(out)]
        else:
            for result in _in_python(drawn, out):
                record["runs"].append(_of_result(result))
    except (Exception, TooLong) as error:  # whatever it is, it must be the same in the other tree
        record["error"] = f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    return record


def _in_python(drawn: Drawn, out: Path) -> Any:
    """The results of the runs of a spec, each saved under `out`, too."""
    from llmsim import load_runs, simulate, simulate_stream

    for run in load_runs(drawn.file, drawn.overrides):
        if drawn.way.startswith("stream"):
            few: dict[str, Any] = {"exact_values": FEW_VALUES} if drawn.way != "stream" else {}
            yield simulate_stream(run, out, **few).load()
        else:
            result = simulate(run)
            result.save(out)
            yield result


def _command(drawn: Drawn, out: Path) -> dict[str, Any]:
    """`python -m llmsim simulate` in this process: exit code, stdout and stderr, without names of folders."""
    options = ["--out", str(out), *drawn.way.split()[1:]]
    options += [word for line in drawn.overrides for word in ("--set", line)]
    arguments, stdout, stderr = sys.argv, io.StringIO(), io.StringIO()
    sys.argv = ["llmsim", "simulate", drawn.file, *options]
    code: object = 0
    try:
        with redirect_stdout(stdout), redirect_stderr(stderr):
            runpy.run_module("llmsim", run_name="__main__")
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv = arguments
    return {"code": code, "stdout": _without_folders(stdout), "stderr": _without_folders(stderr)}


def _without_folders(text: io.StringIO) -> str:
    """The names of run directories hold the time."""
    return "\n".join(line for line in text.getvalue().splitlines() if not line.startswith("saved "))


def _folders(out: Path) -> list[Path]:
    """The run directories under `out`, in an order that does not depend on when they were made."""
    return sorted(out.iterdir(), key=lambda folder: folder.name.partition("-")[2]) if out.is_dir() else []


def _of_folder(folder: Path) -> dict[str, Any]:
    from llmsim import Result

    return _of_result(Result.load(folder)) | {"summary": (folder / "summary.json").read_text(encoding="utf-8")}


def _of_result(result: Result) -> dict[str, Any]:
    """The summary as text, and digests of every column of the tables."""
    return {
        "summary": json.dumps(result.summary, indent=2),
        "tables": {name: digests(getattr(result, name)) for name in TABLES},
        "manifest": {key: result.manifest[key] for key in FACTS if key in result.manifest},
        "warnings": result.warnings(),
    }


def digests(table: pd.DataFrame) -> dict[str, str]:
    """Rows, and of each column its type and the SHA-256 of its values, in the order of the columns."""
    found = {"rows": str(len(table))}
    for name in table.columns:
        column = table[name]
        plain = isinstance(column.dtype, np.dtype) and column.dtype.kind in "iufb"
        values = column.to_numpy().tobytes() if plain else repr(column.tolist()).encode()
        found[str(name)] = f"{column.dtype} {hashlib.sha256(values).hexdigest()[:16]}"
    return found


def _too_long(_number: int, _frame: FrameType | None) -> None:
    raise TooLong(f"no result within {LIMIT_S} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
