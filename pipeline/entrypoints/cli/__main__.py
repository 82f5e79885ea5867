"""`python -m pipeline.entrypoints.cli`: how the supervisor starts our processes."""

from __future__ import annotations

from pipeline.entrypoints.cli.main import main

if __name__ == "__main__":
    main()
