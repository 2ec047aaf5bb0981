"""Attention backends of the real executor: sdpa (torch, any device), flashinfer (CUDA). Loaded on first use."""
