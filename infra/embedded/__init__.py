"""The embedded default: real PostgreSQL and Valkey servers of our own, in a private data folder."""
