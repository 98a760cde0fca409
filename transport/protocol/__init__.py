"""The wire protocol, version 1: one module a dialog, each with its grammar."""
