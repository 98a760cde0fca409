"""The command line, one word a noun."""
