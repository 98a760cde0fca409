"""The partition: the actor that owns one log and its producers' sequences."""
