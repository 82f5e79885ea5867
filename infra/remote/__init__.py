"""A server of Nightrate, asked over HTTP from another machine."""
