"""Connections to hosts that tenants name: standard library alone, for workers that fetch and a scheduler that sends."""
