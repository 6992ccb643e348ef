"""What the demo does beside the rest: results, errors and the end of another process."""

import os

import pytest

from hf_mgan.demo.aside import Aside


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


def test_the_result_and_the_steps_come_back():
    with Aside(halves, [2, 3, 4]) as beside:
        assert beside.result() == [1, 1.5, 2]
        assert beside.steps == 3


def test_errors_and_ends_of_the_process_are_told():
    with Aside(fails) as beside, pytest.raises(RuntimeError, match="ValueError: no such sentence"):
        beside.result()
    with Aside(dies) as beside, pytest.raises(RuntimeError, match="ended with code 7"):
        beside.result()


def test_the_process_does_not_outlive_its_context():
    with pytest.raises(KeyError), Aside(waits) as beside:
        raise KeyError
    assert not beside._process.is_alive()
