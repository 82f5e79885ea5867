"""Simulation: the scheduler's own cycle on a virtual clock, over arrivals that were recorded or made up."""
