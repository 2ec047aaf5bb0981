"""Routers: which replica takes an arriving request. base.py says what a router is; one router a file.

view.py is all that a router may know of replicas; outputs.py and prices.py are what it may expect of requests.
"""

from __future__ import annotations

from llmsim.routers.base import Router
from llmsim.routers.view import LoadBoard, ReplicaView

__all__ = [
    "LoadBoard",
    "ReplicaView",
    "Router",
]
