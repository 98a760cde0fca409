"""The coordinator: the actor that owns one consumer group's members, assignment and offsets."""
