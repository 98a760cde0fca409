"""What an actor does that keeps its state as records of an internal topic: replay them, take over, append to them."""
