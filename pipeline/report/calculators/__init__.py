"""Calculators: what something would cost, worked out from their inputs alone."""
