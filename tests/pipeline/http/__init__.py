"""The API: what it answers, and to whom. A package, so that fixtures may end with it."""
