"""Advice: what would save money, worked out from usage."""
