"""The linear program of the fluid bound: its variables, their units, and the solver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from llmsim.errors import CalibrationError

NAMES = ("iterations", "seconds", "prefill", "decode", "context", "pairs", "past")
"""Variables of the program, for each piece of each kind: what its iterations take and what they serve."""


class LinearProgram:
    """Rows over the variables of all pieces, and one last: the seconds in which the cluster serves a mean request.

    The solver's tolerances are absolute, 1e-7, and a context token costs less than that in seconds. So variables
    count shares (of what a request brings; of `unit_s` seconds), and every row is scaled to coefficients of 1 at most.
    """

    def __init__(self, pieces: int, brought: Mapping[str, float], unit_s: float) -> None:
        self.brought = brought
        self.unit = {"iterations": 1.0, "seconds": unit_s} | {name: max(v, 1.0) for name, v in brought.items()}
        self.shape = (pieces, len(NAMES))
        self.upper: list[NDArray[np.float64]] = []
        self.equal: list[NDArray[np.float64]] = []

    def row(self, entries: dict[int, dict[str, float]], cluster_s: float = 0.0) -> NDArray[np.float64]:
        """Coefficients by piece and name, in natural units."""
        line = np.zeros(self.shape)
        for at, named in entries.items():
            line[at] = [named.get(name, 0.0) * self.unit[name] for name in NAMES]
        flat = np.append(line.ravel(), cluster_s * self.unit["seconds"])
        return flat / max(float(np.abs(flat).max()), 1e-300)

    def at_most_zero(self, entries: dict[int, dict[str, float]], cluster_s: float = 0.0) -> None:
        """A row that must not be positive."""
        self.upper.append(self.row(entries, cluster_s))

    def least(self, *, exactly: Sequence[str]) -> tuple[float, NDArray[np.float64]]:
        """Least seconds of the cluster, and the variables by piece; what is brought is served at least, or exactly.

        Raises CalibrationError if there is no least.
        """
        from scipy.optimize import linprog

        served = {name: self.row({at: {name: 1.0} for at in range(self.shape[0])}) for name in self.brought}
        shares = {name: value / self.unit[name] for name, value in self.brought.items()}
        more = [name for name in self.brought if name not in exactly]
        found = linprog(
            np.append(np.zeros(self.shape[0] * self.shape[1]), 1.0),
            A_ub=np.array([*self.upper, *(-served[name] for name in more)]),
            b_ub=[*(0.0 for _ in self.upper), *(-shares[name] for name in more)],
            A_eq=np.array([served[name] for name in exactly]) if exactly else None,
            b_eq=[shares[name] for name in exactly] if exactly else None,
            method="highs",
        )
        if not found.success or found.x[-1] <= 0:
            why = found.message if not found.success else "its batch times can be 0"
            raise CalibrationError(f"the fluid bound of this calibration cannot be computed: {why}")
        each = found.x[:-1].reshape(self.shape) * np.array([self.unit[name] for name in NAMES])
        return float(found.x[-1]) * self.unit["seconds"], each
