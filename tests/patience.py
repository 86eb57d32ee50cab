"""Promised deadlines in tests: the promise itself where the machine has time, five times that where it is loaded."""

import os
from pathlib import Path

# The share of time in which some task waited for a processor, of the last ten seconds, from which a machine counts as loaded.
PRESSURE = 10.0
FACTOR = 5.0


class Promised(float):
    """Seconds, or another amount, that were promised, and why a test takes this many: a failure shows it."""

    why = ""

    def __repr__(self):
        return f"{float(self):g} ({self.why})"


def load(pressure="/proc/pressure/cpu", average="/proc/loadavg"):
    """Whether the machine is loaded, and in words by what measure."""
    try:
        share = float(Path(pressure).read_text().split("avg10=")[1].split()[0])
    except (OSError, IndexError, ValueError):
        tasks, cores = float(Path(average).read_text().split()[0]), len(os.sched_getaffinity(0))
        return tasks > cores, f"the load average is {tasks:g} on {cores} processors"
    return share > PRESSURE, f"tasks waited for a processor in {share:g} % of the time"


def promised(amount):
    """`amount`, or five times that if the machine is loaded now. Ask when the wait is over: the load is that of its time."""
    loaded, measure = load()
    result = Promised(amount * (FACTOR if loaded else 1.0))
    result.why = f"{FACTOR:g} times what was promised, as {measure}" if loaded else f"as promised, and {measure}"
    return result
