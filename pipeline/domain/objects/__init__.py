"""The formats of what lies in the object store: keys, shards, rosters, parts."""
