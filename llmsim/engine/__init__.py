"""The loop, in the order of a request's life: cluster (arrivals and routing) · pools (who is in service) ·
feasibility (what can never be served) · length_limit (what is longer than the model takes) · replica and async_replica
(batch after batch) · recorder (the log).
"""

from __future__ import annotations

from llmsim.engine.async_replica import AsyncReplica
from llmsim.engine.cluster import Cluster
from llmsim.engine.pools import Pool, Pools
from llmsim.engine.recorder import Observer, Recorder
from llmsim.engine.replica import Replica

__all__ = [
    "AsyncReplica",
    "Cluster",
    "Observer",
    "Pool",
    "Pools",
    "Recorder",
    "Replica",
]
