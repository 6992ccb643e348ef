"""A part of the demo that nothing waits for, in a process of its own: on another core, where there is one.

In: a function and its arguments. Out: what it returns, once it is asked for.
"""

import traceback
from collections.abc import Callable
from multiprocessing import get_context
from types import TracebackType
from typing import Any


class Aside:
    """Calls a function in a process of its own; a context, which the process does not outlive.

    Args:
        function (`Callable`): What to call, which a module holds. Behind its arguments it is given a function to call
            with the number of steps done.
        *args: Its arguments, which can be pickled, as what it returns.
    """

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        context = get_context("spawn")  # a fork would have torch's locks without its threads
        self._steps = context.Value("q", 0, lock=False)
        self._results, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_call, args=(sender, self._steps, function, args), daemon=True)
        self._process.start()
        sender.close()  # the other process has its own, so that its end is seen here

    def __enter__(self) -> "Aside":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()  # unless it has ended: nobody waits for what it does any more
        self._process.join()

    @property
    def steps(self) -> int:
        """Steps done so far."""
        return int(self._steps.value)

    def result(self) -> Any:
        """Wait for the function and return what it returns.

        Raises:
            RuntimeError: If it raised an error, which is named, or its process was killed.
        """
        try:
            value, error = self._results.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"A process of the demo ended with code {self._process.exitcode}.") from None
        self._process.join()  # it clears up by itself
        if error is not None:
            raise RuntimeError(f"A process of the demo failed:\n{error}")
        return value


def _call(sender: Any, steps: Any, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    def move(done: int) -> None:
        steps.value = done

    try:
        sender.send((function(*args, move), None))
    except Exception:
        sender.send((None, traceback.format_exc()))
