"""Results: assemble the output and error files, and say what a batch cost."""
