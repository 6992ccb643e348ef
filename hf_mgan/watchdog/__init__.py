"""The watchdog: reads the log of a training run and says what goes wrong and what to change."""

from .callback import Alarm, Watchdog
from .failure_modes import Thresholds


__all__ = ["Alarm", "Thresholds", "Watchdog"]
