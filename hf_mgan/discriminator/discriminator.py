"""The discriminator: a sequence classifier that learns to tell real text from generated text.

In: plain texts, as (prompt, completion) or (prompt, reference). Out: one logit per text, higher = more real, and in
`update` a step of its own optimizer. Real and generated text take the same way in, `encode`, and one
forward pass over both together gives the logits that the reward and the loss are made of. That needs the pass to be
the same function for both purposes, so dropout is off at all times.

It has no part in the policy, in rewards or in datasets.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME

from ..checks import COUNT, FLAG, LABEL, Check, Choice, Instance, Number, checked, optional
from ..models import (
    check_vocabulary,
    checked_max_length,
    end_token_ids,
    load_processing_class,
    needs_equal_lengths,
    save_quantisation,
    unpadded_batches,
)
from ..objectives import FREE_TO_SHIFT, LOSSES, PAIRED, logit_penalty
from .activation_checkpointing import checkpoint_activations
from .calibration import CALIBRATION_FILE, Calibration, saved_calibration
from .card import discriminator_card
from .encoding import TextEncoder
from .loading import (
    bring_to_float32,
    checked_classifier,
    label_index,
    load_classifier,
    name_labels,
    prepare_quantised_training,
)
from .optimization import make_optimizer
from .passes import Passes
from .prefixes import PrefixScorer
from .previous import load_previous, save_previous
from .regularization import Regularization, check_regularization
from .replay import REPLAY_FRACTION, Replay
from .restoring import restore_weights
from .text_batch import DiscriminatorOutput, TextBatch, different_texts
from .token_dropout import TokenDropout
from .zero3 import loaded_whole


if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

TRAINING_STATE_FILE = "training_state.pt"
TOKENIZER = "discriminator_processing_class"
ARGUMENTS: dict[str, Check] = {
    "label": optional(LABEL),
    "loss": Choice(among=sorted(LOSSES)),
    "max_length": optional(COUNT),
    "batch_size": optional(COUNT),
    "max_grad_norm": Number(above=0, endless=True),
    **dict.fromkeys(("bf16", "fp16", "gradient_checkpointing", "prefixes"), FLAG),
    "regularization": Instance(of=(Regularization,), what="a Regularization", optional=True),
    "replay_fraction": REPLAY_FRACTION,
}
NEW_HEAD = (
    'If it was trained for something else, discriminator_model_init_kwargs={"fresh_head": True} gives it a new head '
    "with one label."
)


class Discriminator:
    """A sequence classifier with its tokenizer, its optimizer and its schedule.

    Args:
        model (`PreTrainedModel` or `PeftModel`): A sequence classifier with one label or more. Weights in half
            precision that are trained are brought to float32, in place.
        processing_class (`PreTrainedTokenizerBase`): Its tokenizer. A copy is kept, with padding on the right.
        label (`str` or `int`, *optional*): Which label means "real": name or index. With one label there is nothing to
            say; with more the logit is the log-odds of that label, z_real - logsumexp(z_others), or, if they do not
            exclude each other (`config.problem_type` is `"multi_label_classification"`), the label's own.
        loss (`str`, *optional*, defaults to `"bce"`): A key of [`~objectives.LOSSES`].
        max_length (`int`, *optional*): Texts are cut to this many tokens of the discriminator's tokenizer. The most
            the model can take by default.
        batch_size (`int`, *optional*): Texts per forward pass. All of them by default. A smaller number saves memory
            at the price of a second forward pass in `update`; the step is the same.
        bf16 (`bool`, *optional*, defaults to `False`): Whether to run the model under bfloat16 autocast. Weights,
            losses and optimizer stay in float32.
        max_grad_norm (`float`, *optional*, defaults to 1.0): Largest norm of a gradient; `TrainingArguments`' default.
        fp16 (`bool`, *optional*, defaults to `False`): The same under float16 autocast, with gradients scaled. An
            update whose scaled gradient overflows is skipped: it counts neither here nor in the schedule.
        gradient_checkpointing (`bool`, *optional*, defaults to `False`): Whether to compute the activations again in
            the backward pass rather than keep them.
        regularization ([`Regularization`], *optional*): What keeps the discriminator from being too confident; nothing
            by default.
        replay_fraction (`float`, *optional*, defaults to 0.0): Share in [0, 1) of the generated texts of the loss that
            are completions of earlier updates.
        prefixes (`bool`, *optional*, defaults to `False`): Whether to score every prefix of a text as well, in the
            loss and in the output; needs a causal model, see [`~prefixes.PrefixScorer`].

    Attributes:
        calibration ([`~calibration.Calibration`], *optional*): From its logit to the log-ratio; None until it is
            calibrated, and again from the next update on.
        num_updates (`int`): Optimizer steps so far.
        prefixes ([`~prefixes.PrefixScorer`], *optional*): How it reads prefixes; None without `prefixes`.
        previous ([`Discriminator`], *optional*): Another one, calibrated, whose choice of the generator's texts this
            one has learnt from, see [`~training.final_updates.fit_discriminator`]; goes with the calibration.
        replay ([`Replay`]): The completions of earlier updates.

    Raises:
        TypeError: If `model` is no sequence classifier, `processing_class` no tokenizer, or a value of another type.
        ValueError: If a value is out of range, the label is missing or unknown, both precisions are asked for, the
            loss and the regularisation do not go together, or the model cannot do what they ask for.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        processing_class: PreTrainedTokenizerBase,
        label: str | int | None = None,
        loss: str = "bce",
        max_length: int | None = None,
        batch_size: int | None = None,
        bf16: bool = False,
        max_grad_norm: float = 1.0,
        fp16: bool = False,
        gradient_checkpointing: bool = False,
        regularization: Regularization | None = None,
        replay_fraction: float = 0.0,
        prefixes: bool = False,
    ) -> None:
        checked(ARGUMENTS, locals())
        base = checked_classifier(model, processing_class)
        if bf16 and fp16:
            raise ValueError("The discriminator runs in one precision: set either bf16 or fp16.")
        regularization = regularization or Regularization()
        check_regularization(loss, regularization)
        if gradient_checkpointing:
            checkpoint_activations(base, base.config.get_text_config())
        prepare_quantised_training(model)
        bring_to_float32(model)
        self.model = model.eval()
        self.label = label_index(base.config, label, "discriminator_label", "real text", hint=NEW_HEAD)
        name_labels(base.config, self.label)
        self.loss: Callable[..., Tensor] = LOSSES[loss]
        if regularization.label_smoothing:
            self.loss = partial(self.loss, label_smoothing=regularization.label_smoothing)
        self._is_free_to_shift = loss in FREE_TO_SHIFT
        self.max_length = checked_max_length(model, processing_class, max_length, "discriminator_max_length")
        self._encoder = TextEncoder(processing_class, self.max_length)
        self.processing_class = self._encoder.processing_class
        base.config.get_text_config().pad_token_id = self.processing_class.pad_token_id
        check_vocabulary(model, self.processing_class, "discriminator", TOKENIZER)
        self.batch_size, self.max_grad_norm = batch_size, max_grad_norm
        self.bf16, self.fp16 = bf16, fp16
        self.calibration: Calibration | None = None
        self.previous: Discriminator | None = None
        self.num_updates = 0
        self.optimizer: torch.optim.Optimizer | None = None
        self.lr_scheduler: Any = None
        self._scaler = torch.amp.GradScaler(enabled=False)  # of the model's device, once there is an optimizer
        self.replay = Replay(replay_fraction, paired=loss in PAIRED)
        self._logit_penalty, dropout = regularization.logit_penalty, regularization.token_dropout
        self.prefixes = PrefixScorer(model, self.processing_class, self.max_length) if prefixes else None
        self._token_dropout = TokenDropout(self.processing_class, dropout) if dropout else None
        precision = torch.float16 if fp16 else torch.bfloat16 if bf16 else None
        exclusive = base.config.problem_type != "multi_label_classification"
        self._passes = Passes(model, self.label, precision, self.prefixes, exclusive)
        self._end_token_ids = end_token_ids(base)
        self._pads = prefixes or not needs_equal_lengths(model, self._encoder.probe_rows(), self._encoder.pad)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        processing_class: PreTrainedTokenizerBase | None = None,
        peft_config: PeftConfig | None = None,
        quantization_config: "BitsAndBytesConfig | None" = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        fresh_head: bool = False,
        attn_implementation: str | None = None,
        **kwargs: Any,
    ) -> "Discriminator":
        """Load a discriminator by Hub id or from a folder.

        A model without a classification head gets a fresh one with one label. A classifier keeps its head unless
        `fresh_head` is set. A folder that `save_pretrained` wrote, adapters included, is continued, with its
        calibration, the label that this is for, prefixes if it has learnt from them, and the previous one if it has
        learnt from what that keeps.

        Args:
            pretrained_model_name_or_path (`str` or `Path`): Hub id or folder.
            processing_class (`PreTrainedTokenizerBase`, *optional*): Its tokenizer; from the same place by default.
            peft_config (`PeftConfig`, *optional*): Adapters to train, with the head, in place of the whole model.
            quantization_config (`BitsAndBytesConfig`, *optional*): Quantisation of all but the head; needs adapters.
                Saved adapters have that of their training by default.
            revision (`str`, *optional*): Branch, tag or commit.
            trust_remote_code (`bool`, *optional*, defaults to `False`): Whether to run code that comes with the model.
            fresh_head (`bool`, *optional*, defaults to `False`): Whether a new head takes the place of one that was
                trained for something else. Adapters that were saved with a head of one label keep it.
            attn_implementation (`str`, *optional*): Its attention, such as `"eager"`; transformers' choice by default.
            **kwargs: Arguments of [`Discriminator`]. Its weights are in float32, whatever they were saved in.

        Raises:
            ValueError: If quantisation is asked for without adapters, adapters on top of saved adapters, or a label
                that the saved calibration is not for, if saved adapters are of another task, or there is no
                tokenizer, or no previous discriminator where there should be one.
        """
        checked(ARGUMENTS, kwargs)
        source = str(pretrained_model_name_or_path)
        tokenizer = processing_class
        if tokenizer is None:
            tokenizer = load_processing_class(
                source, "discriminator", f"give {TOKENIZER}=", revision, trust_remote_code=trust_remote_code
            )
        how = peft_config, quantization_config, revision, trust_remote_code, fresh_head, attn_implementation
        calibration = None if fresh_head else saved_calibration(source, revision)
        if calibration is not None:
            kwargs = {"prefixes": calibration.prefixes, **kwargs}
            kwargs["label"] = calibration.label if kwargs.get("label") is None else kwargs["label"]
        with loaded_whole():
            loaded = cls(load_classifier(source, *how), tokenizer, **kwargs)
        if calibration is not None and calibration.label != loaded.label:
            raise ValueError(
                f"The discriminator of {source} is calibrated for its label {calibration.label}, and label "
                f"{loaded.label} is asked for. Leave the label out, or remove calibration.json and calibrate it anew."
            )
        loaded.calibration = calibration
        loaded.previous = load_previous(cls, source, calibration, revision, trust_remote_code, **kwargs)
        return loaded

    def save_pretrained(self, save_directory: str | Path, repo_id: str | None = None) -> None:
        """Write model (or adapters), tokenizer, card and calibration, if there is one, as an ordinary Hub folder.

        A previous discriminator goes into `previous/` of it.

        Args:
            save_directory (`str` or `Path`): `AutoModelForSequenceClassification` loads it, or PEFT where there are
                adapters.
            repo_id (`str`, *optional*): The repository whose `discriminator/` it becomes, for the card.
        """
        # First, since it may come from this very folder.
        save_previous(None if self.calibration is None else self.previous, save_directory)
        self.model.save_pretrained(str(save_directory))
        save_quantisation(self.model, save_directory)
        if not isinstance(self.model, PeftModel):
            (Path(save_directory) / ADAPTER_CONFIG_NAME).unlink(missing_ok=True)  # it would be loaded in their place
        (Path(save_directory) / "README.md").write_text(discriminator_card(self, repo_id), encoding="utf-8")
        self._encoder.saved_processing_class().save_pretrained(save_directory)
        if self.calibration is not None:
            self.calibration.save(save_directory)
        else:
            (Path(save_directory) / CALIBRATION_FILE).unlink(missing_ok=True)  # that of earlier weights

    def encode(self, prompts: Sequence[str], completions: Sequence[str]) -> BatchEncoding:
        """Tokenise texts: the one way in for real and generated text.

        A prompt and its completion are a text pair where the tokenizer has pairs, one text where it has none; an empty
        prompt leaves the completion alone. What is too long is cut, and a warning says so once: the prompt from its
        beginning, then the completion, special tokens never. A pair keeps the beginning of its completion, one text
        its end.

        Args:
            prompts (`Sequence[str]`): Plain text, "" for none.
            completions (`Sequence[str]`): Plain text.

        Returns:
            `BatchEncoding`: Tensors of shape `(B, T)` on the model's device, T at most `max_length`.
        """
        return (self.prefixes or self._encoder).encode(prompts, completions).to(self.model.device)

    @torch.no_grad()
    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """Compute the logits of texts. Changes nothing.

        Args:
            prompts (`Sequence[str]`): Plain text, "" for none.
            completions (`Sequence[str]`): Plain text, generated or real.

        Returns:
            `Tensor` of shape `(B,)`: float32; higher = more real.
        """
        texts, places = different_texts([*zip(prompts, completions, strict=True)])
        batches, order = self._batches(texts)
        logits = torch.cat([self._passes.logits(batch) for batch in batches])
        return (logits if logits.dim() == 1 else logits[:, -1])[order[places].to(self.model.device)]

    @torch.no_grad()
    def logits(self, batch: BatchEncoding) -> Tensor:
        """Compute the logits of encoded texts, in the discriminator's precision. Changes nothing.

        Args:
            batch (`BatchEncoding`): As `encode` makes it.

        Returns:
            `Tensor` of shape `(B,)`, or `(B, T)` with prefixes: float32; higher = more real.
        """
        if self._pads:
            return self._passes.logits(batch)
        batches, order = unpadded_batches(batch, len(batch["input_ids"]), self._end_token_ids)
        return torch.cat([self._passes.logits(one) for one in batches])[order.to(self.model.device)]

    def log_ratio(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """Compute log p(x) - log q(x), of real to generated text, as far as the discriminator knows. Changes nothing.

        q is the generator. Where the discriminator has learnt from what a previous one keeps of it, both are asked.

        Args:
            prompts (`Sequence[str]`): Plain text, "" for none.
            completions (`Sequence[str]`): Plain text, generated or real.

        Returns:
            `Tensor` of shape `(B,)`: In nats, float32: the logit after calibration, or as it is without one.
        """
        logits = self.score(prompts, completions)
        if self.calibration is None:
            return logits
        previous = None if self.previous is None else self.previous.log_ratio(prompts, completions)
        return self.calibration.log_ratio(logits, previous)

    @torch.no_grad()
    def evaluate(
        self,
        prompts: Sequence[str],
        completions: Sequence[str],
        references: Sequence[str],
        reference_prompts: Sequence[str] | None = None,
    ) -> DiscriminatorOutput:
        """Compute what `update` computes, and change nothing.

        The texts are shown without token dropout and without any of earlier updates; there are no penalties, no
        gradient and no learning rate. In a distributed run every process calls it, and the loss is that of all texts.
        """
        texts = TextBatch.encoded(self._batches, prompts, completions, references, reference_prompts)
        logits = torch.cat([self._passes.logits(batch) for batch in texts.batches])
        loss = self.loss(*self._of_all_processes(texts.real_and_fake(logits)))
        return texts.output(logits, loss, self._threshold(texts, logits))

    def update(
        self,
        prompts: Sequence[str],
        completions: Sequence[str],
        references: Sequence[str],
        reference_prompts: Sequence[str] | None = None,
        remember: bool = True,
    ) -> DiscriminatorOutput:
        """Take one optimizer step on generated against real text.

        With token dropout all texts are shown with noise, and the logits returned are those of the noisy texts. In a
        distributed run every process calls it with texts of its own, and the step is that on all of them at once.

        Args:
            prompts (`Sequence[str]` of length B): Prompts of the completions, "" for none.
            completions (`Sequence[str]` of length B): Generated texts.
            references (`Sequence[str]` of length R): Real texts. For a paired loss the i-th belongs to the i-th
                completion.
            reference_prompts (`Sequence[str]` of length R, *optional*): Their prompts; `prompts` by default.
            remember (`bool`, *optional*, defaults to `True`): Whether the completions are kept for replay. Where
                several updates show the same ones, only the last should.

        Returns:
            [`DiscriminatorOutput`]: The logits of the texts given before the step, and the metrics of the step.

        Raises:
            RuntimeError: If `create_optimizer` has not been called.
            FloatingPointError: If the loss, a penalty or the gradient is not finite; nothing has been changed then.
        """
        if self.optimizer is None:
            raise RuntimeError("The discriminator has no optimizer yet: call create_optimizer(args, num_steps) first.")
        self.calibration = self.previous = None
        past = self.replay.draw_beside(len(completions)) if self.replay.fraction else []
        texts = TextBatch.encoded(self._batches, prompts, completions, references, reference_prompts, past)
        batches = texts.batches
        if self._token_dropout is not None:
            batches = [self._token_dropout(batch) for batch in batches]
        terms: dict[str, Tensor] = {}

        def objective(logits: Tensor) -> Tensor:
            real_and_fake = self._of_all_processes(texts.real_and_fake(logits))
            terms["loss"] = self.loss(*real_and_fake)
            if not self._logit_penalty:
                return terms["loss"]
            terms["logit_penalty"] = logit_penalty(*real_and_fake)
            return terms["loss"] + self._logit_penalty * terms["logit_penalty"]

        logits = self._passes.backward(batches, objective, self._scaler)
        learning_rate = self.lr_scheduler.get_last_lr()[0]
        grad_norm = self._clipped(self.optimizer)
        # In float16 a gradient that is not finite means that it was scaled too much, which the step sees to.
        norm = {} if self._scaler.is_enabled() else {"norm of the gradient": grad_norm}
        self._check_finite({**terms, **norm}, completions)
        self._step(self.optimizer)
        extra = {name: term.detach() for name, term in terms.items() if name != "loss"}
        if self.replay.fraction:
            (replayed,) = self._passes.of_all_processes((texts.replayed(logits),))
            if replayed.numel():
                extra["replayed_prob"] = replayed.sigmoid().mean()
            if remember:
                self.replay.add(
                    prompts, completions, prompts if reference_prompts is None else reference_prompts, references
                )
        threshold = self._threshold(texts, logits)
        return texts.output(logits, terms["loss"], threshold, grad_norm, learning_rate, extra)

    def _of_all_processes(self, real_and_fake: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the logits of the real and of the generated texts of all processes, those of prefixes in one row."""
        real, fake = self._passes.of_all_processes(real_and_fake)
        return real.flatten(), fake.flatten()

    def _threshold(self, texts: TextBatch, logits: Tensor) -> Tensor:
        """Return the logit above which a text counts as taken for real, see [`DiscriminatorOutput`]."""
        if not self._is_free_to_shift:
            return torch.zeros((), device=logits.device)
        real, fake = self._of_all_processes(texts.new_real_and_fake(logits))
        return (fake.mean() + real.mean()) / 2

    def _check_finite(self, terms: dict[str, Tensor], completions: Sequence[str]) -> None:
        """Refuse a step from a loss, a penalty or a gradient that is not finite, and take the gradients away."""
        if torch.stack([value.isfinite() for value in terms.values()]).all():
            return
        problem = next(f"{name} is {value.item()}" for name, value in terms.items() if not value.isfinite())
        self.model.zero_grad(set_to_none=True)
        raise FloatingPointError(
            f"The discriminator's {problem} at its update {self.num_updates}; the first of the completions is "
            f"{completions[0]!r}. The last checkpoint, if there is one, is what it was: go on from it with a lower "
            "discriminator_learning_rate."
        )

    def _clipped(self, optimizer: torch.optim.Optimizer) -> Tensor:
        """Clip the gradients, and return their norm before."""
        self._scaler.unscale_(optimizer)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return nn.utils.clip_grad_norm_(trained, self.max_grad_norm)

    def _step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the step.

        In float16 there is none where the scaled gradient is not finite; it is an error if it is not however small it
        is scaled.
        """
        scale = self._scaler.get_scale()
        self._scaler.step(optimizer)
        self._scaler.update()
        torch.clear_autocast_cache()  # of a caller's autocast, which would go on with the weights of before
        optimizer.zero_grad(set_to_none=True)
        if self._scaler.get_scale() >= scale:  # a smaller one says that the gradient was not finite and no step taken
            self.lr_scheduler.step()
            self.num_updates += 1
        elif self._scaler.get_scale() < 1:
            raise FloatingPointError(
                "The discriminator's gradient is not finite in float16, however small it is scaled. Use bf16=True in "
                "place of fp16=True, or lower discriminator_learning_rate. The last checkpoint, if there is one, is "
                "what it was."
            )

    def create_optimizer(self, args: TrainingArguments, num_training_steps: int) -> None:
        """Make the optimizer and its schedule.

        They are not prepared by accelerate: a prepared optimizer only steps together with the generator's, so with
        gradient accumulation the discriminator would stand still.

        Args:
            args (`TrainingArguments`): `optim` with its arguments, `learning_rate`, `weight_decay`,
                `lr_scheduler_type` and the warm-up of the schedule are read.
            num_training_steps (`int`): Number of updates over which the schedule runs.

        Raises:
            ValueError: If the model is quantised and has no adapters, or no parameter may be trained.
        """
        self.optimizer, self.lr_scheduler = make_optimizer(self.model, args, num_training_steps)
        self._scaler = torch.amp.GradScaler(self.model.device.type, enabled=self.fp16)

    def to(self, device: torch.device) -> "Discriminator":
        """Move the model to a device, and average its gradients over the processes of a distributed run."""
        if not getattr(self.model, "is_quantized", False):  # a quantised model is placed when it is loaded
            self.model.to(device)
        if self.previous is not None:
            self.previous.to(device)
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            idle = self._passes.leaves_parameters_idle(self.encode([""], ["a"]))
            self._passes.trained = DistributedDataParallel(self.model, find_unused_parameters=idle)
            self.replay.share = dist.get_rank(), dist.get_world_size()
        return self

    def save_state(self, folder: str | Path) -> None:
        """Write optimizer, schedule, scaler and number of updates, as tensors and plain values, into `folder`."""
        if self.optimizer is None:
            raise RuntimeError("There is no training state to save: create_optimizer has not been called.")
        Path(folder).mkdir(parents=True, exist_ok=True)
        state = {
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict(),
            "num_updates": self.num_updates,
            "scaler": self._scaler.state_dict(),
        }
        torch.save(state, Path(folder) / TRAINING_STATE_FILE)

    def load_state(self, folder: str | Path, model_folder: str | Path) -> None:
        """Restore what `save_state` wrote to `folder` and what `save_pretrained` wrote to `model_folder`.

        Raises:
            RuntimeError: If `create_optimizer` has not been called.
            ValueError: As [`load_weights`].
        """
        if self.optimizer is None:
            raise RuntimeError("Call create_optimizer before load_state: it restores the optimizer's state.")
        self.load_weights(model_folder)
        state = torch.load(Path(folder) / TRAINING_STATE_FILE, map_location=self.model.device, weights_only=True)
        self.optimizer.load_state_dict(state["optimizer"])
        self.lr_scheduler.load_state_dict(state["lr_scheduler"])
        self.num_updates = state["num_updates"]
        if state["scaler"]:  # empty but in float16
            self._scaler.load_state_dict(state["scaler"])

    def load_weights(self, folder: str | Path) -> None:
        """Restore weights, calibration and previous discriminator that `save_pretrained` wrote.

        Raises:
            ValueError: If the folder does not hold all weights of this model, in their shapes.
        """
        with loaded_whole():
            restore_weights(self.model, folder)
        self.calibration = saved_calibration(str(folder))
        self.previous = load_previous(
            type(self), str(folder), self.calibration, batch_size=self.batch_size, bf16=self.bf16, fp16=self.fp16
        )
        if self.previous is not None:
            self.previous.to(self.model.device)

    def _batches(self, texts: list[tuple[str, str]]) -> tuple[list[BatchEncoding], Tensor]:
        """Encode texts, and return the batches and the place of each text among their rows."""
        size, order = self.batch_size or len(texts), torch.arange(len(texts))
        if self.prefixes is not None:
            prompts, completions = zip(*texts, strict=True)
            batches = self.prefixes.encode_in_batches(prompts, completions, size)
            return [batch.to(self.model.device) for batch in batches], order
        if not self._pads:
            return unpadded_batches(self.encode(*zip(*texts, strict=True)), size, self._end_token_ids)
        starts = range(0, len(texts), size)
        return [self.encode(*zip(*texts[start : start + size], strict=True)) for start in starts], order
