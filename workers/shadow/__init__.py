"""Watching variants in production: a model's reference judges a few of the answers that its variants gave."""
