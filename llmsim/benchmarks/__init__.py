"""How fast the simulator is: ``python -m llmsim.benchmarks`` (`make bench`).

workloads (what is measured) · speed (one replica, and the peer) · scale (a million requests, many replicas) · peers
"""
