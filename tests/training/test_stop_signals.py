"""Signals that ask a run to stop: a checkpoint first, then what would have come at once."""

import os
import signal
import threading

import pytest
import torch
from accelerate import Accelerator
from transformers import TrainerCallback

from hf_mgan.training.stop_signals import StopSignals


@pytest.fixture(autouse=True)
def default_handlers():
    """A shell lets what it runs in the background ignore SIGINT."""
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def signals():
    return StopSignals(Accelerator(cpu=True))


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_signal_is_due_and_delivered_later(signals, number, error):
    before = signal.getsignal(number)

    def run():
        with signals.received():
            assert not signals.are_due()
            signal.raise_signal(number)
            assert signals.are_due()
            signals.deliver()

    with pytest.raises(error) as raised:
        run()
    assert signal.getsignal(number) is before
    if error is SystemExit:
        assert raised.value.code == 128 + signal.SIGTERM


def test_second_interrupt_stops_at_once(signals):
    def run():
        with signals.received():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handler_of_the_user_is_called(signals, monkeypatch):
    calls = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: calls.append(number))
    try:
        with signals.received():
            signal.raise_signal(signal.SIGTERM)
            assert not calls
            signals.deliver()
        assert calls == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_ignored_signal_stays_ignored(signals):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with signals.received():
            signal.raise_signal(signal.SIGTERM)
            assert not signals.are_due()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_no_handlers_outside_of_the_main_thread(signals):
    before, seen = signal.getsignal(signal.SIGTERM), []

    def run():
        with signals.received():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]


class Stop(TrainerCallback):
    """Sends a signal in the middle of a step."""

    def __init__(self, step, number):
        self.step, self.number = step, number

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step == self.step - 1:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
@pytest.mark.parametrize("strategy", ["no", "steps"])
def test_stopped_run_has_saved_the_step_it_was_in(make_trainer, make_config, tmp_path, number, error, strategy):
    config = make_config(max_steps=3, save_strategy=strategy, save_steps=2, enable_jit_checkpoint=True)
    trainer = make_trainer(config, callbacks=[Stop(2, number)])
    with pytest.raises(error):
        trainer.train()
    assert [path.name for path in (tmp_path / "out").glob("checkpoint-*")] == ["checkpoint-2"]
    saved = torch.load(tmp_path / "out" / "checkpoint-2" / "optimizer.pt")
    assert saved["state"][0]["step"] == 2  # the step it was in was taken, and once
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
