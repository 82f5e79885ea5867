"""FOCUS: the FinOps Open Cost and Usage Specification, versions 1.2 and 1.3 of its Cost and Usage dataset."""
