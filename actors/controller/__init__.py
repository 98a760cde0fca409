"""The controller: the actor that owns topics, their configuration, groups and blocks of producer ids."""
