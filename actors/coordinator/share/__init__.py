"""Share groups: what a coordinator does for a group whose members take single records, as from a work queue."""
