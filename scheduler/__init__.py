"""Decisions, pure: the cycle, tiers as weights, packing, rescue."""
