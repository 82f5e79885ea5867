"""The outside world that is not data: embedded servers, the broker, processes."""
