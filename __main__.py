"""`python -m planaria`: the same as the `planaria` command. Owns nothing; called by the interpreter."""

from .supervisor.cli import main

if __name__ == "__main__":
    main()
