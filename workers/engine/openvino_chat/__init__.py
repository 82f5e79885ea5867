"""Chat and text completions by OpenVINO GenAI's continuous batching: the fast path on CPUs."""
