"""Access to the logs of partitions, the same for the client's machines and for actors.

    reader.py    the position of one reader in one partition: its fetches, and the batches that they return

Pure. A machine decides when to read, and what a refusal means to it; it makes no `fetch` of its own.
"""
