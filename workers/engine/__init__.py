"""One file per engine; the registry of them."""
