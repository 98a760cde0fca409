"""How messages move: formats, sockets, the event loop, clients. Imports neither actors nor supervisor."""
