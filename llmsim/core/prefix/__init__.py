"""The prefix cache of vLLM v1, block for block, kept as runs of blocks of one content rather than as single blocks."""
