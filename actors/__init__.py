"""What the processes are: each one a pure machine that decides and a thin process that performs."""
