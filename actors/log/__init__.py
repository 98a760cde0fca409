"""A partition's log on disk: segments, their indexes, recovery."""
