"""Clients and their machines: all that a program which only attaches needs."""
