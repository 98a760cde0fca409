"""The wake-up latency of idle processors, which a broker can have limited while it runs. Impure; Linux only.

An idle processor halts, or enters a deeper idle state, and takes its time to wake up; on a virtual machine the wake-up
goes through the hypervisor. A message that is published alone pays for several wake-ups. The kernel keeps the processors
in the states that wake up in time for as long as a process holds a request open (PM QoS,
https://docs.kernel.org/power/pm_qos_interface.html). It ends the request when the process ends, however that ends.
"""

import os
from pathlib import Path

from ..transport.protocol.errors import OperatorNeeded

DEVICE = Path("/dev/cpu_dma_latency")
ANY = -1
"""As the system is set."""


class LatencyRefused(OperatorNeeded):
    """The kernel does not take the request."""


def hold_cpu_latency(latency_us: int, device: Path = DEVICE) -> int | None:
    """Limit the wake-up latency of all processors, until the returned descriptor is closed or this process ends.

    With 0 they poll instead of halting. Returns None for `ANY`. Raises LatencyRefused. The descriptor is not inherited.
    """
    if latency_us == ANY:
        return None
    try:
        descriptor = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
        os.write(descriptor, latency_us.to_bytes(4, "little"))
    except OSError as error:
        raise LatencyRefused(f"cpu_latency_us needs to write to {device}: {error.strerror}") from error
    return descriptor
