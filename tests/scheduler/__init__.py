"""The scheduler: properties of its plans, each with mutants that it catches."""
