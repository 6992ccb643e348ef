"""Signals that ask a run to stop: it ends its step, saves a checkpoint, and only then stops.

In: SIGTERM, which schedulers send before they take a machine away, and SIGINT (Ctrl-C). Out: what would have come of
the signal at once, a step later: `KeyboardInterrupt`, the end of the process, or a handler of the user's.

transformers' `enable_jit_checkpoint` saves in the middle of a step, before the optimizer's, so that the gradient of
that step is lost; between two steps nothing is.
"""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator


logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Receives the signals while a run trains.

    Signals reach the main thread of a process alone; a run in another thread is stopped by them as without this.

    Args:
        accelerator (`Accelerator`): Of the run, whose processes stop at the same step.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._received = 0
        self._handlers: dict[int, Any] = {}

    @contextmanager
    def received(self) -> Iterator[None]:
        """Receive the signals within this context, but those that the process ignores."""
        self._received = 0
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None: not set from Python
                    self._handlers[number] = signal.signal(number, self._receive)
        try:
            yield
        finally:
            self.release()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received and number == signal.SIGINT:  # Ctrl-C for the second time
            self.release()
            signal.raise_signal(number)
            return
        self._received = number
        more = " Ctrl-C stops it at once." if number == signal.SIGINT else ""
        logger.warning(f"{signal.Signals(number).name}: the run ends its step, saves a checkpoint and stops.{more}")

    def release(self) -> None:
        """Give the signals back to those who had them."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def are_due(self) -> bool:
        """Whether a process has received one; all processes ask at the same step, and hear the same."""
        if self._accelerator.num_processes > 1:
            mine = torch.tensor([self._received], device=self._accelerator.device)
            self._received = int(self._accelerator.gather(mine).max().item())
        return bool(self._received)

    def deliver(self) -> None:
        """Let the signal do what it does without this class.

        Raises:
            KeyboardInterrupt: For SIGINT, unless the user has a handler for it.
            SystemExit: For SIGTERM, unless the user has a handler for it; with 128 + 15, as a shell reports it.
        """
        number, self._received = self._received, 0
        handler = self._handlers.get(number, signal.getsignal(number))
        self.release()
        if handler is signal.SIG_DFL or handler is None:
            # The default would end the process without closing files and trackers.
            raise SystemExit(128 + number)
        signal.raise_signal(number)
