"""The processor's seconds that the parts of a job take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up the processor's seconds for the parts of a job, which do not depend on what else the machine does.

    Attributes:
        seconds (`dict[str, float]`): By part.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add what happens within to a part."""
        began = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - began
