"""Batch times: how long one iteration takes, by a calibration or by a model of one's own.

base.py says what a cost model is; linear.py, stratified.py and tabulated.py are the forms; calibration.py finds, loads
and saves the files; box.py and ranges.py tell when a run left what was measured; models.py has the shapes of models.
"""

from __future__ import annotations

from llmsim.costs.base import CostModel
from llmsim.costs.calibration import load_calibration
from llmsim.costs.records import Calibration

__all__ = [
    "Calibration",
    "CostModel",
    "load_calibration",
]
