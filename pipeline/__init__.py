"""The promise: what a batch is, and how a user meets it."""
