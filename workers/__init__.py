"""Running a pack: the runner, its threads, and the engines."""
