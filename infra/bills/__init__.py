"""Bills of providers, as they export them."""
