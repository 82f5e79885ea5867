"""Measuring engines on one workload: what they make of this machine, and what the machine could do."""
