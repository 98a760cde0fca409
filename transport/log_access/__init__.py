"""Access to the logs of partitions, the same for the client's machines and for actors.

    reader.py    the position of one reader in one partition: its fetches, and the batches that they return
    writer.py    a batch on its way to one partition: its request, and its one result

Pure. A machine decides when to read and to write, and the meaning of a refusal; it makes no `fetch` of its own.
"""
