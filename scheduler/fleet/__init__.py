"""Renting machines: when spot, when on demand, in which zone; pure decisions over what was seen of pools."""
