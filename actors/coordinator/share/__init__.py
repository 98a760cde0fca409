"""Share groups: the coordinator's part for groups whose members acquire single records, as from a work queue."""
