"""The actors: each one is a pure machine that decides and a thin process that performs its effects."""
