"""A mirror: copies topics of another broker."""
