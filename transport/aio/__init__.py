"""The client for asyncio and trio.

The machines and the network thread are those of the client for threads (`transport/client/`); here they have an
asynchronous face:

    loops.py      the running loop, and the queue from the network thread into it: one wake-up for each turn of the thread
    calls.py      calls and outcomes that a task waits for
    the others    the objects that programs use; `aio.py` in the root lists them

Nothing is imported here: a hosted subscriber uses a part of it alone.
"""
