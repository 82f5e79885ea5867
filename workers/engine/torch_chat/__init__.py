"""Continuous batching for causal language models on PyTorch: engine, decoders, slot cache, sampler, text."""
