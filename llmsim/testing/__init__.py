"""What a policy's author runs: check_scheduler and check_router (conformance), golden (decision traces)."""

from llmsim.testing.conformance import check_scheduler
from llmsim.testing.routing import check_router

__all__ = ["check_router", "check_scheduler"]
