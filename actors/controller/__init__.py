"""The controller: the actor that owns topics, their configuration and blocks of producer ids."""
