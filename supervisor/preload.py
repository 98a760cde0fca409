"""The last module that the fork server loads: makes the memory of the loaded modules cheap to share.

A page that a child writes to becomes private, and each object that it touches is written to, for its reference count. So
this module fills the holes that the imports left behind, so that a child's own objects lie on fresh pages and are not
scattered over shared ones; and freezes the existing objects, since the collector's first run in each child would write to
every object's header. The imports' garbage, a thousand objects that all processes share, is frozen with them: to look for
it takes a tenth of a broker's start. Every child also keeps the memory that large batches have freed. Imported by dotted
path only, see broker_tree.py; must never create a ZeroMQ context or a thread.
"""

import ctypes
import gc
import sys

POOL_BYTES = 16 * 1024
"""Size of a pool of Python's allocator, for blocks of one size from 16 to 512 bytes."""
SMALL_BLOCKS = range(48, 513, 16)
LARGE_BLOCKS = (*range(64 * 1024, 1024, -1024), *range(1032, 16, -16))
"""From malloc; ZeroMQ's small ones as well. The largest first, else they would be split for the small ones."""
MAX_FILLED_BYTES = 256 * 1024
"""Limit per block size."""
FRESH_LARGE_BLOCKS = 8
"""This many consecutive blocks come from the end of the heap."""
KEPT_BYTES = 2 * 1024 * 1024
"""Freed memory that malloc keeps for each thread, and the size from which a block is returned by itself. A partition gets
batches of 512 KB, five from each producer at a time."""
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

_fillers: list[bytes] = []


def fill_pools() -> None:
    """Allocate blocks of each size until they fill a pool from its beginning."""
    header_bytes = sys.getsizeof(b"")
    for size in SMALL_BLOCKS:
        last, in_a_row = 0, 0
        for _ in range(MAX_FILLED_BYTES // size):
            _fillers.append(bytes(size - header_bytes))
            address = id(_fillers[-1])
            in_a_row = in_a_row + 1 if address - last == size else 0
            last = address
            if in_a_row >= POOL_BYTES // size - 2:
                break


def fill_heap() -> None:
    """Fill malloc's free blocks in the same way."""
    malloc = ctypes.CDLL(None).malloc
    malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    for size in LARGE_BLOCKS:
        last, in_a_row = 0, 0
        for _ in range(max(2 * FRESH_LARGE_BLOCKS, MAX_FILLED_BYTES // size)):
            address = malloc(size) or 0
            in_a_row = in_a_row + 1 if 0 < address - last <= size + 16 else 0
            last = address
            if in_a_row == FRESH_LARGE_BLOCKS:
                break


def keep_freed_memory() -> None:
    """Have glibc return memory to the kernel later; other libraries have no such call.

    Otherwise it returns the memory of nearly every batch, and gets it back, zeroed and page by page, for the next.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


fill_pools()
fill_heap()
keep_freed_memory()
gc.freeze()
gc.enable()
