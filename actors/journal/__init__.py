"""The journal of an actor that keeps its state as records of an internal topic: replay, takeover and appends."""
