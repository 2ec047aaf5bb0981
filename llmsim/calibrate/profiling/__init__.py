"""From measurements to calibrations: one module a source, run with `python -m`; needs scikit-learn to fit."""
