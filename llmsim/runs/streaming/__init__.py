"""Runs whose memory follows the requests in flight: tables go to disk as the run goes on, metrics are added up."""

from llmsim.runs.streaming.run import StreamedResult, simulate_stream

__all__ = ["StreamedResult", "simulate_stream"]
