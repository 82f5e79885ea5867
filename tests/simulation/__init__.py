"""Deterministic simulation of leasing, committing and metering: every fault from a seed, on a virtual clock."""
