"""Questions that take many runs: capacity/ (the highest rate, the fewest replicas), experiment (experiments/)."""
