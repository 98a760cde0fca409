"""The last thing the fork server loads: what is loaded by now moves out of the garbage collector's sight.

Otherwise each child's first collection would write to every object's header and so copy the pages it shares. Imported
by dotted path only, see broker_tree.py; must never create a ZeroMQ context or a thread.
"""

import gc

gc.collect()
gc.freeze()
