"""Providers' own prices, asked of them."""
