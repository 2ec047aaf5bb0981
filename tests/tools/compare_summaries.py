"""Whether this tree gives the results of another one: random specs, every summary and table byte for byte.

    python tests/tools/compare_summaries.py --against COMMIT [--specs 60] [--seed 0] [--jobs 2] [--keep DIR]

COMMIT is checked out beside for as long as it takes (a folder that holds a tree will do, too). Each tree serves all
specs in a process of its own, through public names and the command line alone. Exit codes: 0 all equal, 1 something
differs or too few specs ran, 2 the comparison could not be made. On 1 the specs and both trees' runs are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from summary_differences import Difference, differences, explain
from summary_specs import Drawn, draw_specs

ROOT = Path(__file__).resolve().parents[2]
CHILD = Path(__file__).resolve().with_name("summary_child.py")
MOST_ERRORS = 0.1
"""Share of the specs, and one more, that may end in an error; a comparison of errors says little."""
EVENTS = ("preemptions", "unfinished", "rejected")
"""Keys of a summary that count what only some runs have."""
Records = dict[str, dict[str, Any]]
"""Lines of summary_child.py by the spec's file."""


class NotCompared(Exception):
    """A tree that cannot be checked out, or whose child died; says which and why."""


class Verdict(NamedTuple):
    """What came out for each spec, by file: in `equal` both ran, in `errors` both failed alike (with the text).

    `happened` counts the runs of this tree in which EVENTS happened at all.
    """

    equal: list[str]
    errors: dict[str, str]
    different: dict[str, list[Difference]]
    happened: Counter[str]

    @property
    def good(self) -> bool:
        """No difference, and enough specs that ran."""
        total = len(self.equal) + len(self.errors)
        return not self.different and len(self.errors) <= MOST_ERRORS * total + 1


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print, and give the exit code."""
    given = _arguments(argv)
    folder = Path(tempfile.mkdtemp(prefix="compare-summaries-")) if given.keep is None else given.keep
    folder.mkdir(parents=True, exist_ok=True)
    folder, began = folder.resolve(), perf_counter()
    keep = given.keep is not None
    try:
        verdict, drawn, slowest = compare(given.against, given.specs, given.seed, given.jobs, folder)
        keep = keep or not verdict.good
    except NotCompared as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        if not keep:
            shutil.rmtree(folder)
    print(report(verdict, drawn))
    print(f"{perf_counter() - began:.0f} s; the slowest spec took {slowest:.1f} s")
    if keep:
        print(f"specs and runs are in {folder}")
    return 0 if verdict.good else 1


def compare(against: str, count: int, seed: int, jobs: int, folder: Path) -> tuple[Verdict, list[Drawn], float]:
    """The verdict on `count` specs, these, and the seconds of the slowest; all files under `folder`.

    Raises NotCompared.
    """
    specs = folder / "specs"
    specs.mkdir()
    drawn = draw_specs(count, seed, specs)
    with tree_of(against, folder / "tree") as other:
        here, there = serve_all((ROOT, other), (folder / "here", folder / "there"), specs, jobs)
    verdict = judge(here, there, folder)
    return verdict, drawn, max(line["seconds"] for line in (*here.values(), *there.values()))


@contextmanager
def tree_of(against: str, checkout: Path) -> Iterator[Path]:
    """The tree of a commit, checked out at `checkout` for the time being, or a folder as it is."""
    if (Path(against) / "llmsim").is_dir():
        yield Path(against).resolve()
        return
    git = ["git", "-C", str(ROOT), "worktree"]
    added = subprocess.run([*git, "add", "--detach", str(checkout), against], capture_output=True, text=True)
    if added.returncode:
        raise NotCompared(f"{against} cannot be checked out: {added.stderr.strip()}")
    try:
        yield checkout
    finally:
        subprocess.run([*git, "remove", "--force", str(checkout)], capture_output=True, check=True)


def serve_all(trees: Sequence[Path], outs: Sequence[Path], specs: Path, jobs: int) -> list[Records]:
    """The records of each tree; `jobs` processes at a time, one a tree or, of more than two, several.

    Raises NotCompared if one ends before its last spec.
    """
    step = max(jobs // len(trees), 1)
    for out in outs:
        out.mkdir()
    with ThreadPoolExecutor(jobs) as pool:
        parts = [pool.submit(_serve, *pair, specs, first, step)
                 for first in range(step) for pair in zip(trees, outs, strict=True)]  # fmt: skip
        lines = [part.result() for part in parts]
    return [{k: v for part in lines[at :: len(trees)] for k, v in part.items()} for at in range(len(trees))]


def _serve(tree: Path, out: Path, specs: Path, first: int, step: int) -> Records:
    """Every `step`th spec from `first` on, served by one child with the llmsim of `tree`."""
    command = [sys.executable, str(CHILD), str(tree), str(specs), str(out), str(first), str(step)]
    environment = os.environ | {"PYTHONPATH": str(tree), "COLUMNS": "120"}
    child = subprocess.run(command, cwd=specs, env=environment, capture_output=True, text=True)
    if child.returncode:
        raise NotCompared(f"{tree}: the child ended with {child.returncode}: {child.stderr.strip()[-2000:]}")
    text = (out / f"records-{first}.jsonl").read_text(encoding="utf-8")
    return {line["file"]: line for line in map(json.loads, text.splitlines())}


def judge(here: Records, there: Records, folder: Path) -> Verdict:
    """Spec by spec, in the order of their files; run directories are looked for under `folder`."""
    verdict = Verdict([], {}, {}, Counter())
    for file in sorted(here):
        mine, theirs = here[file]["record"], there[file]["record"]
        found = differences(mine, theirs)
        for summary in (json.loads(run["summary"]) for run in mine["runs"]):
            verdict.happened.update(event for event in EVENTS if summary.get(event))
        if found:
            runs = [sorted((folder / side / Path(file).stem).glob("*-*"), key=_after_stamp)
                    for side in ("here", "there")]  # fmt: skip
            verdict.different[file] = [explain(one, *runs) for one in found]
        elif mine["error"] is not None:
            verdict.errors[file] = mine["error"]
        else:
            verdict.equal.append(file)
    return verdict


def _after_stamp(run: Path) -> str:
    return run.name.partition("-")[2]


def report(verdict: Verdict, drawn: Sequence[Drawn]) -> str:
    """The verdict as lines: what was covered, what failed alike, what differs, and the count at the end."""
    lines = []
    for what in dict.fromkeys(key for one in drawn for key in one.facts):
        counts = Counter(word for one in drawn if one.facts.get(what) for word in one.facts[what].split(", "))
        lines.append(f"{what}: " + ", ".join(f"{word} {n}" for word, n in sorted(counts.items())))
    ways = Counter(one.way for one in drawn)
    lines.append("served by: " + ", ".join(f"{way} {n}" for way, n in sorted(ways.items())))
    lines.append("runs with: " + ", ".join(f"{event} {verdict.happened[event]}" for event in EVENTS))
    lines += [f"same error: {file}: {' '.join(error.split())[:300]}" for file, error in verdict.errors.items()]
    by_file = {one.file: one for one in drawn}
    for file, found in verdict.different.items():
        facts = by_file[file].facts
        lines.append(f"DIFFERS: {file} ({by_file[file].way}; " + "; ".join(v for v in facts.values() if v) + ")")
        lines += [f"    {one}" for one in found]
    if not verdict.good and not verdict.different:
        lines.append("too few specs ran: the comparison says little")
    equal, errors, different = len(verdict.equal), len(verdict.errors), len(verdict.different)
    lines.append(f"{equal + errors + different} specs: {equal} equal, {errors} with the same error, {different} differ")
    return "\n".join(lines)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", required=True, metavar="COMMIT", help="a commit, or a folder with a tree")
    parser.add_argument("--specs", type=int, default=60, metavar="N", help="how many random specs (60)")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other specs (0)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes at a time (2: one a tree)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="put specs and runs there, and keep them")
    given = parser.parse_args(argv)
    for name in ("specs", "jobs"):
        if getattr(given, name) < 1:
            parser.error(f"--{name} must be at least 1 but got {getattr(given, name)}")
    if given.keep is not None and given.keep.exists() and (not given.keep.is_dir() or any(given.keep.iterdir())):
        parser.error(f"--keep takes a new or empty directory but {given.keep} is none")
    return given


if __name__ == "__main__":
    sys.exit(main())
