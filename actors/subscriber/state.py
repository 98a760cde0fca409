"""The state that the parts of a subscriber's machine share: its phase, its tables, the effects of the current event.

Decides nothing. Created by the machine; `serving.py`, `handling.py`, `failing.py` and `ending.py` work on it.
"""

from typing import Literal

from ...transport.subscription import SubscriberOptions
from .backoff import Draw
from .commits import Commits
from .delivery import STRATEGIES
from .effects import Effect, Offsets
from .failures import Failures
from .intake import Intake
from .key_limits import KeyLimits
from .partitions import Partitions
from .recovered_state import Memory, RecoveredState
from .revocations import Revocations
from .runs import Runs

Phase = Literal["serving", "stopping", "leaving", "crashing", "ended"]


class SubscriberState:
    def __init__(self, options: SubscriberOptions, recovered: RecoveredState, draw: Draw) -> None:
        self.options = options
        self.phase: Phase = "serving"
        self.is_polling = False
        self.is_poll_ending = False
        """True if the poll that is out has been told to end."""
        self.effects: list[Effect] = []
        """Effects of the event that is being handled."""
        self.strategy = STRATEGIES[options.delivery]
        self.memory = Memory(recovered)
        self.partitions = Partitions(
            options.concurrency,
            records_ahead=self.strategy.records_ahead,
            weights=options.weights,
            lanes_per_key=options.max_in_flight_per_key,
        )
        self.failures = Failures(options, self.strategy, self.partitions, self.memory.lineage, draw)
        self.runs = Runs(options, self.partitions, self.memory, recovered.suspects, self.failures.breaker)
        self.revocations = Revocations(options, self.strategy, self.partitions, self.runs, self.memory)
        self.commits = Commits()
        self.key_limits = KeyLimits(options)
        self.intake = Intake(options, self.strategy, self.partitions, self.runs, self.memory, self.commits)

    def do(self, effect: Effect) -> None:
        self.effects.append(effect)

    @property
    def is_working(self) -> bool:
        """True while a record is held or with a worker."""
        return bool(self.runs.running) or any(lane.held for lane in self.partitions.at_work.values())

    @property
    def is_quiet(self) -> bool:
        """True if no effect is out that may commit or hand over a partition: a commit made now is made once."""
        return not (self.is_polling or self.commits.is_in_flight)

    @property
    def committable(self) -> Offsets:
        """The offsets that may be committed now."""
        return self.strategy.after_handling(self.partitions.owned.values())
