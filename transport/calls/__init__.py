"""Calls: requests to other processes, each of which ends in exactly one Answered or Failed.

    machine of an actor, or of a client
        |  Call                          ^  Answered, Failed
        v                                |
    exchange.py     calls in flight: deadlines, retries, calls held until their receiver can be reached. Pure.
        |  locate                        ^  Release, Lost, Refused, Ask
        v                                |
    directory.py    the interface to the knowledge of who can be reached where. Pure. Two implementations:
                    peers.py, in actors, learns from the supervisor; client/broker_directory.py asks the gateway
        |  Connect, Send, Disconnect     ^  Arrived, Undeliverable
        v                                |
    performer.py    the socket

An actor's loop, a client's network thread and the simulations run the same exchange and the same performer.
"""
