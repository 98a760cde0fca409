"""The scheduler: the actor that holds the messages of one partition of `__delayed`, and moves them when they are due."""
