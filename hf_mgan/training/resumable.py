"""A GRPO trainer whose runs stop and go on without a trace.

transformers writes a checkpoint in place and in several steps, and TRL's lacks what is half done: the generation batch
and the metrics since the last log. Here a checkpoint is written aside and renamed when it is whole, holds both, and is
written before a signal ends the run. It has no part in adversarial training; [`AdversarialTrainer`] is built upon it.
"""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from transformers.trainer_jit_checkpoint import JITCheckpointCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput
from trl import GRPOConfig, GRPOTrainer

from .checkpoint import Progress, dtypes_kept, naming
from .finite import REMEDY, check_finite, check_optimizer_finite
from .stop_signals import StopSignals
from .whole_checkpoint import ASIDE, clear, fault, finish, newest, remove_old


class ResumableTrainer(GRPOTrainer):
    """[`~trl.GRPOTrainer`] with checkpoints that are whole, exact and finite.

    Args:
        *args, **kwargs: As in [`~trl.GRPOTrainer`].
    """

    # Narrower than transformers declares them.
    args: GRPOConfig
    model: Any
    optimizer: torch.optim.Optimizer
    _logs: dict[str, Any]
    _buffered_inputs: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Where this process is in its generation batch and in its logging window, if it goes on from a checkpoint.
        self._progress: Progress | None = None
        self._takes_progress = True
        self._is_aside = False
        self._saved_step: int | None = None
        self._stop_signals = StopSignals(self.accelerator)
        self._replace_jit_checkpoint()

    def _replace_jit_checkpoint(self) -> None:
        """Take transformers' handler of SIGTERM away: what it is asked for is done here, exactly on a step."""
        for callback in list(self.callback_handler.callbacks):
            if isinstance(callback, JITCheckpointCallback):
                callback.on_train_end(self.args, self.state, self.control)  # puts the handler back that was before
                self.remove_callback(callback)

    def train(
        self,
        resume_from_checkpoint: str | os.PathLike | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train as always, from a checkpoint that is whole, and save one before a signal ends the run.

        Args:
            resume_from_checkpoint (`str`, `PathLike` or `bool`, *optional*): A checkpoint, or True for the newest one
                in `output_dir` that is whole.
            trial (*optional*): As in [`~transformers.Trainer.train`].
            ignore_keys_for_eval (`list[str]`, *optional*): As in [`~transformers.Trainer.train`].

        Raises:
            ValueError: If the checkpoint is not whole, or does not fit this run.
        """
        checkpoint: str | bool | None = None
        if resume_from_checkpoint is True:
            run_dir = self._get_output_dir(None)
            if self.args.should_save:
                clear(run_dir)
            self.accelerator.wait_for_everyone()
            checkpoint = newest(run_dir) or True  # without any, transformers says so
        elif resume_from_checkpoint:
            checkpoint = os.fspath(resume_from_checkpoint)
        self._start_from(checkpoint if isinstance(checkpoint, str) else None)
        with self._stop_signals.received():
            return super().train(checkpoint, trial, ignore_keys_for_eval)

    def _start_from(self, checkpoint: str | None) -> None:
        """See where the run starts, None for its beginning; check a checkpoint before anything of it is loaded."""
        self._saved_step, self._progress = None, None
        if checkpoint is not None and (problem := fault(checkpoint)) is not None:
            raise ValueError(
                f"{problem} Give an earlier checkpoint, or resume_from_checkpoint=True for the newest whole one."
            )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load the weights in the precision of the adapters."""
        with dtypes_kept(self.model):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load what is half done as well."""
        if checkpoint is None:
            return super()._load_optimizer_and_scheduler(checkpoint)
        with naming(checkpoint, OPTIMIZER_NAME, SCHEDULER_NAME):
            super()._load_optimizer_and_scheduler(checkpoint)
        if self._takes_progress:
            self._load_progress(checkpoint)

    def _load_progress(self, checkpoint: str) -> None:
        self._progress = Progress.load(checkpoint, self.accelerator.process_index, self.accelerator.device)
        self._buffered_inputs = self._progress.generation_batch
        self._metrics = self._progress.metric_lists()
        for name, values in json.loads(self._progress.completions).items():
            if isinstance(values, dict):
                for key, entries in values.items():
                    self._logs[name][key].extend(entries)
            else:
                self._logs[name].extend(values)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Load the states of random numbers, and name the file if it holds something else."""
        with naming(checkpoint or "", "rng_state.pth", "rng_state_<rank>.pth"):
            super()._load_rng_state(checkpoint)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Take no step where all are taken, and go on within the logging window of the checkpoint.

        transformers looks at `max_steps` only after a step, and has set its sums to 0 by now.
        """
        if self.state.max_steps and self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        if self._progress is not None:
            self._tr_loss += self._progress.loss
            self._total_loss_scalar -= self._progress.loss.item()  # the mean is over the steps since
            self._globalstep_last_logged = self._progress.last_logged
            self._progress = None
        super()._run_epoch(*args, **kwargs)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Generate with weights that are finite; sampling from others ends in an error that says nothing of them."""
        check_finite("generator", self.model)
        return super()._generate_and_score_completions(inputs)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Refuse a step from a gradient that is not finite.

        In float16 it means that the gradient was scaled too much, which its scaler sees to. DeepSpeed has taken the
        step by now; what it leaves is not saved.
        """
        norm = super()._get_grad_norm(model, grad_norm)
        if norm is None or self.accelerator.scaler is not None or self.is_deepspeed_enabled:
            return norm
        value = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if not math.isfinite(value):
            model.zero_grad(set_to_none=True)
            raise FloatingPointError(
                f"The norm of the generator's gradient is {value} at step {self.state.global_step}, and no step is "
                f"taken from it. {REMEDY}"
            )
        return norm

    def _maybe_log_save_evaluate(
        self, tr_loss: torch.Tensor, grad_norm: Any, model: nn.Module, trial: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Log, save and evaluate what is due; where a signal asks the run to stop, save in any case, and stop."""
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)
        self._stop_if_asked(trial)

    def _stop_if_asked(self, trial: Any = None) -> None:
        """Save a checkpoint, unless there is one of this very state, and stop, where a signal asks for it."""
        if not self._stop_signals.are_due():
            return
        if self._saved_step != self.state.global_step or not self.state.global_step:
            self._save_now(trial)
        self._stop_signals.deliver()

    def _finalize_training(self, trial: Any, *args: Any, **kwargs: Any) -> TrainOutput:
        """From here on signals do what they always do: nothing is left to be saved."""
        self._stop_if_asked(trial)
        self._stop_signals.release()
        return super()._finalize_training(trial, *args, **kwargs)

    def _save_now(self, trial: Any = None) -> None:
        self._save_checkpoint(self.model, trial)
        self.control = self.callback_handler.on_save(self.args, self.state, self.control)

    # The signature is TRL's.
    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint aside, and give it its name when all processes have written their part of it."""
        run_dir = self._get_output_dir(trial)
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        checkpoint, unfinished = os.path.join(run_dir, name), os.path.join(run_dir, ASIDE, name)
        if self.args.should_save:
            clear(run_dir)
        self.accelerator.wait_for_everyone()
        with self._aside():
            super()._save_checkpoint(model, trial)
        if self.state.best_model_checkpoint == unfinished:
            self.state.best_model_checkpoint = checkpoint
            if self.args.should_save:
                self.state.save_to_json(os.path.join(unfinished, "trainer_state.json"))
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            finish(unfinished, checkpoint)
        self.accelerator.wait_for_everyone()
        self._saved_step = self.state.global_step
        if self.args.push_to_hub:
            self._push_from_checkpoint(checkpoint)
        if self.args.should_save:
            remove_old(run_dir, self.args.save_total_limit, self.state.best_model_checkpoint)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        self._is_aside = True
        try:
            yield
        finally:
            self._is_aside = False

    def _get_output_dir(self, trial: Any) -> str:
        """Return where checkpoints are written: aside, while one is."""
        run_dir = super()._get_output_dir(trial)
        return os.path.join(run_dir, ASIDE) if self._is_aside else run_dir

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push a checkpoint once it is whole."""
        if not self._is_aside:
            super()._push_from_checkpoint(checkpoint_folder)

    # The signature is TRL's, which departs from that of transformers.
    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Save what is half done as well, on every process."""
        check_optimizer_finite("generator", self.optimizer)
        super()._save_optimizer_and_scheduler(output_dir)
        used_up = self._step % (cast(int, self.args.steps_per_generation) * self.num_iterations) == 0
        progress = Progress(
            generation_batch=None if used_up else self._buffered_inputs,
            metrics={mode: dict(values) for mode, values in self._metrics.items()},
            loss=self._tr_loss.detach().cpu(),
            last_logged=self._globalstep_last_logged,
            completions=json.dumps(self._last_completions(), default=str),
        )
        progress.save(output_dir, self.accelerator.process_index)

    def _last_completions(self) -> dict[str, Any]:
        """Return what TRL shows of the last batch, if it shows it; images are not kept."""
        if not self.log_completions:
            return {}
        logs = {name: values for name, values in self._logs.items() if name != "images"}
        return {
            name: {key: list(entries) for key, entries in values.items()} if isinstance(values, dict) else list(values)
            for name, values in logs.items()
        }
