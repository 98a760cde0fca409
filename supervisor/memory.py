"""How much memory is a process's own: what would be free if it ended. Linux only; elsewhere 0.

What a child shares with the fork server is nobody's own, so resident size would count the interpreter once per actor.
"""


def own_memory_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as rollup:
            return 1024 * sum(int(line.split()[1]) for line in rollup if line.startswith(b"Private_"))
    except OSError:
        # Gone meanwhile, or not Linux.
        return 0
