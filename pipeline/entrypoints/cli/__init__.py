"""The command line: `nightrate`."""
