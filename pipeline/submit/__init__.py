"""Intake: read, validate, fingerprint, order and shard a file of requests."""
