"""Cases for `vllm bench forward --shapes FILE.json`, from a plan.

    python -m llmsim.calibrate.importers.vllm_shapes PLAN > FILE.json

vLLM 0.33.0 takes no chunk of a single token, nor a chunk with nothing before it; cases with one are left out.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from llmsim.calibrate.profiling.cases import Case
from llmsim.calibrate.profiling.plan import Plan, load_plan
from llmsim.errors import LlmsimError


def taken(case: Case) -> bool:
    """Whether vLLM takes the case as it is."""
    return not any(one.chunked and (one.queries == 1 or not one.past) for one in case.sequences)


def shapes(plan: Plan) -> dict[str, Any]:
    """What the file holds: lengths in tokens, the queries among the keys."""
    return {
        "cases": [
            {
                "name": case.name,
                "requests": [
                    {"query_len": one.queries, "kv_len": one.keys, "chunked": one.chunked} for one in case.sequences
                ],
            }
            for case in plan.cases
            if taken(case)
        ]
    }


def main(name: str) -> int:
    """Print the shapes of a shipped plan or a plan file; the exit code, 1 with a line on stderr for a wrong name."""
    try:
        plan = load_plan(name)
    except LlmsimError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    held = shapes(plan)
    print(json.dumps(held, indent=1))
    print(f"{len(held['cases'])} of {len(plan.cases)} cases", file=sys.stderr)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("error: give one plan, shipped or a file that ends in .yaml")
    sys.exit(main(sys.argv[1]))
