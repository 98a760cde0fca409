"""The hosted subscriber: the actor that runs a handler as one member of a group."""
