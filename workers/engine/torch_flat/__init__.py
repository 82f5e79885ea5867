"""The torch chat engine for CUDA: a flat cache, a captured decode step, and the host one step behind the device."""
