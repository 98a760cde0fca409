"""The metadata store: keys and values that everything else is decided from."""
