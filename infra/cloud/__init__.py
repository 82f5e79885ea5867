"""Machines somewhere: what starts them, stops them, lists them, and what tells that they are about to be taken."""
