"""Who keeps the actors alive: the tree, the embedded Broker, configuration, the command line."""
