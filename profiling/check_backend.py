"""Does an attention backend compute the right thing on this device? Compiles its kernels, compares, prints.

Prompts are computed in chunks, mixed with decodes, over scattered pages, by the backend under test, and at one go by
torch's SDPA with the same weights on the same device; the logits of their last tokens must agree. Exit code 1 if not.

    python profiling/check_backend.py --device cuda --backend flashinfer --dtype bfloat16
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace

import numpy as np

from llmsim.errors import LlmsimError
from llmsim.executors.device_info import device_report
from llmsim.executors.runner import DeviceSpec, ModelRunner
from llmsim.executors.step import Row
from llmsim.costs.models import load_model

LENGTHS = (200, 77, 512, 48)
"""Tokens of the prompts; 48 = 3 pages of 16, so that one ends with a page."""

STEPS = ((64, 77, 256, 47), (135, 0, 200, 1), (1, 0, 56, 0))
"""Tokens of each prompt in each step; one token behind a past is a decode."""

TOLERANCE = {"bfloat16": 5e-2, "float16": 1e-2, "float32": 1e-3, "float64": 1e-9}
"""Largest difference of logits over the largest logit. Pages mixed up give about 1."""


def main() -> int:
    """Parse, compute both ways, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama-3-8b", help="shape, of which --layers layers are built")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backend", default="flashinfer")
    parser.add_argument("--dtype", default="bfloat16", choices=TOLERANCE)
    parser.add_argument("--hidden", action="store_true", help="also a step with padded rows, which takes a mask")
    given = parser.parse_args()
    report = device_report(given.device)
    print(report["name"], report["versions"])
    for line in report["warnings"]:
        print(f"warning: {line}")
    config = replace(load_model(given.model), layers=given.layers)
    spec = DeviceSpec(device=given.device, backend=given.backend, dtype=given.dtype)
    chunked = _logits(ModelRunner(config, spec, 256), STEPS, hidden=given.hidden)
    whole = _logits(ModelRunner(config, replace(spec, backend="sdpa"), 256), (LENGTHS,), hidden=False)
    error = float(np.abs(chunked - whole).max() / np.abs(whole).max())
    verdict = "agree" if error <= TOLERANCE[given.dtype] else "DIFFER"
    print(f"{given.backend} in {len(STEPS)} steps and sdpa in one {verdict}: {error:.1e} of the largest logit")
    return 0 if verdict == "agree" else 1


def _logits(runner: ModelRunner, steps: tuple[tuple[int, ...], ...], *, hidden: bool) -> np.ndarray:
    """Logits (prompts, vocabulary) of the last token of each prompt, computed in `steps`; prints how long they took."""
    draw = np.random.default_rng(0)
    tokens = [draw.integers(runner.config.vocabulary, size=length, dtype=np.int64) for length in LENGTHS]
    scattered = draw.permutation(runner.num_pages).astype(np.int32)
    tables = np.array_split(scattered, len(LENGTHS))
    done, found = [0] * len(LENGTHS), {}
    for step in steps:
        rows = []
        for i in sorted((i for i, count in enumerate(step) if count), key=lambda i: step[i] != 1 or not done[i]):
            last = done[i] + step[i] == LENGTHS[i]
            row = Row(tokens[i][done[i] : done[i] + step[i]], done[i], tables[i], hidden=37 if hidden and last else 0)
            rows.append((i, row))
            done[i] += step[i]
        began = time.perf_counter()
        logits = runner.logits([row for _, row in rows]).double().cpu().numpy()
        print(f"  {runner.spec.backend}: {len(rows)} rows in {time.perf_counter() - began:.2f} s")
        found |= {i: logits[at] for at, (i, _) in enumerate(rows)}
    return np.stack([found[i] for i in range(len(LENGTHS))])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LlmsimError as error:
        sys.exit(f"error: {error}")
