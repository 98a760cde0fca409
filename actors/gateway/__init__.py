"""The gateway: the actor at the public endpoint; routes frames by their header and keeps no state."""
