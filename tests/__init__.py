"""Tests: mirrors of the five packages, and simulation, end to end, faults and benchmarks."""
