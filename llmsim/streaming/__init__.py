"""Runs whose memory follows the requests in flight: tables go to disk as the run goes on, metrics are added up."""
