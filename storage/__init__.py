"""Postgres and objects: the truth, and the bytes."""
