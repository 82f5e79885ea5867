"""The Protocols that cross the borders between storage, workers, scheduler and infra."""
