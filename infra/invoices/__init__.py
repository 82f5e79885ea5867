"""Invoices of providers, as they export them."""
