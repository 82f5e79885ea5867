"""Text by vLLM, in an environment of its own (docs/adr/0017)."""
