"""Supervision of the actors: the tree, the embedded Broker, configuration, the command line."""
