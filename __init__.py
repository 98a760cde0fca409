"""Planaria: a publish-subscribe broker of supervised processes that regrow whatever is killed."""

__version__ = "0.1.0"
