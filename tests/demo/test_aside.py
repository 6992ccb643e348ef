"""What the demo does beside the rest: results, errors and the end of another process."""

import os
from multiprocessing import Pipe
from types import SimpleNamespace

import pytest

from hf_mgan.demo.aside import Aside, _call
from hf_mgan.demo.report import Bars


def halves(numbers, on_step):
    on_step(len(numbers))
    return [number / 2 for number in numbers]


def fails(_):
    raise ValueError("no such sentence")


def dies(_):
    os._exit(7)


def waits(_):
    import time

    time.sleep(600)


def aside_of(function, *args):
    """Return an [`Aside`] whose function has been called here, which is faster than in a process."""
    beside = object.__new__(Aside)
    beside._steps = SimpleNamespace(value=0)
    beside._results, sender = Pipe(duplex=False)
    beside._process = SimpleNamespace(join=lambda: None)
    _call(sender, beside._steps, function, args)
    return beside


def test_the_result_and_the_steps_come_back():
    beside = aside_of(halves, [2, 3, 4])
    assert beside.result() == [1, 1.5, 2]
    assert beside.steps == 3


def test_an_error_is_told_with_where_it_came_from():
    with pytest.raises(RuntimeError, match=r"in fails\n(.*\n)+ValueError: no such sentence"):
        aside_of(fails).result()


def test_bars_follow_what_runs_beside_the_rest():
    """A bar ends where the next part begins, but for that of another process, which says itself how far it is."""
    bars, beside = Bars(), SimpleNamespace(steps=0)
    bars.add("encoder", 5)
    bars.follow("again", 10, beside)
    beside.steps = 3
    bars.add("training", 5)
    bars.get_renderables()
    encoder, again, training = bars.tasks
    assert (again.completed, training.completed) == (3, 0)
    assert [task.stop_time is None for task in (encoder, again, training)] == [False, True, True]


@pytest.mark.slow
def test_a_process_gives_back_its_result_or_how_it_ended():
    with Aside(halves, [2, 3, 4]) as beside:
        assert beside.result() == [1, 1.5, 2]
        assert beside.steps == 3
    with Aside(dies) as beside, pytest.raises(RuntimeError, match="ended with code 7"):
        beside.result()


@pytest.mark.slow
def test_the_process_does_not_outlive_its_context():
    with pytest.raises(KeyError), Aside(waits) as beside:
        raise KeyError
    assert not beside._process.is_alive()
