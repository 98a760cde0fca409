"""The cluster's decisions: placement, elections, suspicion, drains. Pure."""
