"""The coordinator: the actor that owns one group: members, assignment and offsets, or the records of a share group."""
