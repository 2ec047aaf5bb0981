"""What the author of a policy runs: conformance checks, and decision traces of the originals."""

from llmsim.testing.conformance import check_scheduler

__all__ = ["check_scheduler"]
