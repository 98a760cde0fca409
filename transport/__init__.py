"""Formats, sockets, the event loop and clients. Imports neither actors nor supervisor."""
