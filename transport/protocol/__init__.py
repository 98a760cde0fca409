"""The wire protocol, version 1: one module for each API group, with its grammar."""
