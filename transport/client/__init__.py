"""Clients and their machines: all that a program which only attaches needs.

Programs import the names from `planaria`. Nothing is imported here: a command that needs only an error or a description
does not load the client.
"""
