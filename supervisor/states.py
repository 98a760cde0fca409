"""The states of a child; children.py has their order. Pure."""

from enum import Enum


class State(Enum):
    WAITING = "waiting"
    STARTING = "starting"
    RECOVERING = "recovering"
    READY = "ready"
    STOPPING = "stopping"
    BACKING_OFF = "backing_off"
    QUARANTINED = "quarantined"
    STOPPED = "stopped"
    ASLEEP = "asleep"
