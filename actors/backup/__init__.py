"""Backups of a data directory: taken while the broker runs, restored, and verified."""
