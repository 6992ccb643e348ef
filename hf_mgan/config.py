"""Settings of adversarial training: those of TRL's GRPO, and the discriminator's."""

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from transformers import SchedulerType, TrainingArguments
from transformers.training_args import OptimizerNames
from transformers.utils import is_bitsandbytes_available
from trl import GRPOConfig

from .data import TRANSLATION_TEMPLATE
from .discriminator import PENALTY_ON_PREFIXES, Regularization, check_regularization, check_replay
from .objectives import LOSSES, REWARDS


def _is_of_bitsandbytes(optimizer: str) -> bool:
    names = ("8bit", "bnb", "paged", "lion", "ademamix")
    return any(name in optimizer for name in names) and not optimizer.startswith("adamw_torch")


@dataclass
class AdversarialConfig(GRPOConfig):
    r"""Configuration of [`AdversarialTrainer`].

    Everything of [`~trl.GRPOConfig`] keeps its meaning and its default, unless it stands below. The rest belongs to
    the discriminator or to the making of prompts.

    Args:
        discriminator_loss (`str`, *optional*, defaults to `"bce"`): What the discriminator minimises: `"bce"`,
            `"bradley_terry"` (each completion against the reference of its own prompt), `"relativistic_average"`,
            `"hinge"`, `"least_squares"` or `"wasserstein"`.
        discriminator_reward (`str`, *optional*, defaults to `"minimax"`): What a logit is worth to the generator:
            `"log_d"`, `"minimax"`, `"logit"` or `"probability"`. On the demo's language no other pair of loss and
            reward ends below `"bce"` with `"minimax"` beyond the noise (0.281 bits; 0.342 before; docs/recipe.md).
        discriminator_weight (`float`, *optional*, defaults to 1.0): Weight of this reward beside those of
            `reward_funcs`.
        discriminator_learning_rate (`float`, *optional*, defaults to 5e-5): Learning rate of the discriminator's
            optimizer.
        discriminator_optim (`str`, *optional*, defaults to `"adamw_torch"`): Any name that `optim` takes, such as
            `"paged_adamw_8bit"`.
        discriminator_weight_decay (`float`, *optional*, defaults to 0.0): Weight decay of the discriminator's
            matrices.
        discriminator_lr_scheduler_type (`str`, *optional*, defaults to `"constant"`): Any name that
            `lr_scheduler_type` takes. The schedule runs over all updates of the discriminator.
        discriminator_max_grad_norm (`float`, *optional*, defaults to 1.0): Largest norm of the discriminator's
            gradient.
        discriminator_max_length (`int`, *optional*): Texts are cut to this many of the discriminator's tokens. The
            most that the discriminator can take by default.
        discriminator_batch_size (`int`, *optional*): Texts a forward pass of the discriminator, if all of them at once
            are too many for the memory. The update stays the same.
        discriminator_steps (`int`, *optional*, defaults to 1): Updates of the discriminator per generation batch,
            those of its warm-up included. The reward is taken before the first; each draws real texts of its own.
        discriminator_warmup_steps (`int`, *optional*, defaults to 0): Updates of the discriminator alone, on
            completions of the generator as it starts, before the generator's first step. Each batch of completions
            serves for `discriminator_steps` of them, the last for those that are left. They are not counted in
            `max_steps`; a log entry follows each batch that passes a multiple of `logging_steps`.
        discriminator_warmup_accuracy (`float`, *optional*): Accuracy in (0.5, 1] that ends the warm-up early: it stops
            after the first batch on which the discriminator reaches it. `discriminator_warmup_steps` is then the
            most.
        discriminator_accuracy_ceiling (`float`, *optional*): Accuracy in (0.5, 1] above which the discriminator rests:
            after a batch on which its accuracy is greater it does not learn from the next one. It does not rest while
            it warms up. Off by default.
        discriminator_accuracy_floor (`float`, *optional*): Accuracy in [0, 1) below which the generator rests: a batch
            on which the discriminator's accuracy is smaller moves the discriminator alone. Off by default.
        discriminator_label_smoothing (`float`, *optional*, defaults to 0.0): Epsilon in [0, 0.5): real texts are
            learnt as real with probability 1 - epsilon, generated ones as before (one-sided). For `"bce"` and
            `"least_squares"`.
        discriminator_logit_penalty (`float`, *optional*, defaults to 0.0): Coefficient of the mean square of the
            logits in the discriminator's loss.
        discriminator_gradient_penalty (`float`, *optional*, defaults to 0.0): Coefficient of the penalty on the
            gradient of a logit with respect to the word embeddings, on real and generated texts.
        discriminator_gradient_penalty_type (`str`, *optional*, defaults to `"noise"`): `"noise"` estimates that
            gradient from the change of the logit under noise, at the price of a second forward pass; `"exact"`
            differentiates twice.
        discriminator_gradient_penalty_noise (`float`, *optional*, defaults to 0.1): Deviation of that noise, as a
            share of the root mean square of the word embeddings.
        discriminator_token_dropout (`float`, *optional*, defaults to 0.0): Instance noise: probability in [0, 1) that
            a token is replaced before the discriminator learns from it, on both sides alike.
        discriminator_replay_fraction (`float`, *optional*, defaults to 0.0): Share in [0, 1) of the generated side of
            the discriminator's loss that consists of completions of earlier batches.
        discriminator_replay_size (`int`, *optional*, defaults to 2048): Completions kept for that, the newest ones, a
            process.
        discriminator_credit (`str`, *optional*, defaults to `"sequence"`): `"sequence"` pays a completion as a whole;
            `"token"` pays each token by what it changes in the discriminator's mind, which judges every prefix. Needs
            a causal discriminator and `scale_rewards="none"`.
        discriminator_credit_discount (`float`, *optional*, defaults to 1.0): With `"token"`: weight in [0, 1] of what
            the next token earns in the return of a token. At 1 the gradient is that of the reward of the whole; less
            has less variance, and looks less far ahead.
        discriminator_length_neutral (`bool`, *optional*, defaults to `False`): Whether the part of the reward that
            goes along with length within a group is taken off, so that nothing is won by writing longer or shorter.
        discriminator_density_offset (`bool`, *optional*, defaults to `False`): Whether to add log q_0(x) - log q(x) to
            every logit, with q the generator's density and q_0 its density when the game began. The best logit is
            log p(x) - log q(x), so the classifier is then left with log p(x) - log q_0(x), which stands still while
            the generator moves: the generator can take larger steps. Costs two forward passes of the generator over
            completions and real texts. Needs new adapters (`peft_config`).
        discriminator_label (`str`, *optional*): Name or index of the label that means real, for a classifier of two
            labels or more. Naming it keeps the classifier's head.
        discriminator_fresh_head (`bool`, *optional*, defaults to `False`): Whether a classifier that was trained for
            something else gets a new head with one label. A model without a classification head gets one anyway.
        discriminator_gradient_checkpointing (`bool`, *optional*, defaults to `False`): Whether the discriminator
            computes its activations again in the backward pass rather than keep them: less memory, more time. The
            generator has `gradient_checkpointing`.
        real_text_coef (`float`, *optional*, defaults to 0.0): Coefficient of the generator's cross-entropy on real
            texts, in nats a token, in its loss: an anchor against collapse. It is gamma of PPO-ptx (Ouyang et al.
            2022, [2203.02155](https://huggingface.co/papers/2203.02155), equation 2). The other anchor is `beta`, the
            KL divergence to the starting model, as in [`~trl.GRPOConfig`].
        ema_decay (`float`, *optional*): Decay in (0, 1) of an exponential moving average of the generator's trained
            weights. Evaluations and everything that is saved use the average; training goes on with the weights
            themselves, and the model holds the average when it ends.
        min_prompt_tokens (`int`, *optional*, defaults to 0): For datasets with a `text` column: the prompt is the
            start of the sequence and the first k tokens of the text, k drawn uniformly from this number to
            `max_prompt_tokens`.
        max_prompt_tokens (`int`, *optional*, defaults to 0): The greatest k. With 0 the generator writes whole texts.
        source_lang (`str`, *optional*): For datasets with a `translation` column: language of the prompt; its first
            key by default.
        target_lang (`str`, *optional*): Language of the completion; the second key by default.
        translation_template (`str`, *optional*): The prompt, with the fields `source_lang`, `target_lang` and
            `source`.
        learning_rate (`float`, *optional*, defaults to 1e-5): Learning rate of the generator. TRL's 1e-6 is meant for
            whole models; adapters want more.
    """

    if TYPE_CHECKING:
        # What these are after `__post_init__`, which puts a value in the place of None and a dict in the place of its
        # JSON; upstream declares what they may be before. When the program runs, the fields are upstream's.
        output_dir: str = "trainer_output"
        steps_per_generation: int = 1
        model_init_kwargs: dict[str, Any] | None = None

    learning_rate: float = field(default=1e-5, metadata={"help": "Learning rate of the generator."})
    discriminator_loss: str = field(
        default="bce", metadata={"help": "What the discriminator minimises.", "choices": sorted(LOSSES)}
    )
    discriminator_reward: str = field(
        default="minimax", metadata={"help": "What a logit is worth to the generator.", "choices": sorted(REWARDS)}
    )
    discriminator_weight: float = field(
        default=1.0, metadata={"help": "Weight of the discriminator's reward beside those of `reward_funcs`."}
    )
    discriminator_learning_rate: float = field(
        default=5e-5, metadata={"help": "Learning rate of the discriminator's optimizer."}
    )
    discriminator_optim: str = field(default="adamw_torch", metadata={"help": "Any name that `optim` takes."})
    discriminator_weight_decay: float = field(
        default=0.0, metadata={"help": "Weight decay of the discriminator's matrices."}
    )
    discriminator_lr_scheduler_type: str = field(
        default="constant", metadata={"help": "Any name that `lr_scheduler_type` takes."}
    )
    discriminator_max_grad_norm: float = field(
        default=1.0, metadata={"help": "Largest norm of the discriminator's gradient."}
    )
    discriminator_max_length: int | None = field(
        default=None, metadata={"help": "Texts are cut to this many of the discriminator's tokens."}
    )
    discriminator_batch_size: int | None = field(
        default=None, metadata={"help": "Texts a forward pass of the discriminator. All of them by default."}
    )
    discriminator_steps: int = field(
        default=1, metadata={"help": "Updates of the discriminator per generation batch."}
    )
    discriminator_warmup_steps: int = field(
        default=0, metadata={"help": "Updates of the discriminator alone, before the generator's first step."}
    )
    discriminator_warmup_accuracy: float | None = field(
        default=None, metadata={"help": "Accuracy in (0.5, 1] that ends the warm-up early."}
    )
    discriminator_accuracy_ceiling: float | None = field(
        default=None, metadata={"help": "Accuracy in (0.5, 1] above which the discriminator rests for a batch."}
    )
    discriminator_accuracy_floor: float | None = field(
        default=None, metadata={"help": "Accuracy in [0, 1) below which the generator rests for a batch."}
    )
    discriminator_label_smoothing: float = field(
        default=0.0, metadata={"help": "Epsilon in [0, 0.5): real texts count as real with probability 1 - epsilon."}
    )
    discriminator_logit_penalty: float = field(
        default=0.0, metadata={"help": "Coefficient of the mean square of the logits in the discriminator's loss."}
    )
    discriminator_gradient_penalty: float = field(
        default=0.0, metadata={"help": "Coefficient of the penalty on the gradient of the logits."}
    )
    discriminator_gradient_penalty_type: str = field(
        default="noise",
        metadata={"help": "How that gradient is found: from noise, or exactly.", "choices": ["exact", "noise"]},
    )
    discriminator_gradient_penalty_noise: float = field(
        default=0.1, metadata={"help": "Deviation of that noise, as a share of the size of the word embeddings."}
    )
    discriminator_token_dropout: float = field(
        default=0.0,
        metadata={"help": "Probability in [0, 1) that a token is replaced before the discriminator learns."},
    )
    discriminator_replay_fraction: float = field(
        default=0.0, metadata={"help": "Share in [0, 1) of the generated side that comes from earlier batches."}
    )
    discriminator_replay_size: int = field(
        default=2048, metadata={"help": "Completions of earlier batches that are kept, a process."}
    )
    discriminator_credit: str = field(
        default="sequence",
        metadata={"help": "What is paid: a completion or each of its tokens.", "choices": ["sequence", "token"]},
    )
    discriminator_credit_discount: float = field(
        default=1.0, metadata={"help": "Weight in [0, 1] of what the next token earns in the return of a token."}
    )
    discriminator_length_neutral: bool = field(
        default=False, metadata={"help": "Whether the part of the reward that goes along with length is taken off."}
    )
    discriminator_density_offset: bool = field(
        default=False,
        metadata={"help": "Whether the known change of the generator's density is added to every logit."},
    )
    discriminator_label: str | None = field(
        default=None, metadata={"help": "Name or index of the label that means real, where there are several."}
    )
    discriminator_fresh_head: bool = field(
        default=False,
        metadata={"help": "Whether a classifier that was trained for something else gets a new head with one label."},
    )
    discriminator_gradient_checkpointing: bool = field(
        default=False,
        metadata={"help": "Whether the discriminator computes activations again rather than keep them."},
    )
    real_text_coef: float = field(
        default=0.0, metadata={"help": "Coefficient of the generator's cross-entropy on real texts in its loss."}
    )
    ema_decay: float | None = field(
        default=None, metadata={"help": "Decay in (0, 1) of a moving average of the generator's trained weights."}
    )
    min_prompt_tokens: int = field(
        default=0, metadata={"help": "Least number of tokens of a `text` that become its prompt."}
    )
    max_prompt_tokens: int = field(
        default=0, metadata={"help": "Greatest number of tokens of a `text` that become its prompt."}
    )
    source_lang: str | None = field(default=None, metadata={"help": "Language of the prompt of a `translation`."})
    target_lang: str | None = field(default=None, metadata={"help": "Language of the completion of a `translation`."})
    translation_template: str = field(
        default=TRANSLATION_TEMPLATE,
        metadata={"help": "Prompt of a `translation`, with the fields source_lang, target_lang and source."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.discriminator_loss not in LOSSES:
            raise ValueError(f"discriminator_loss must be one of {sorted(LOSSES)}, got {self.discriminator_loss!r}.")
        if self.discriminator_reward not in REWARDS:
            raise ValueError(
                f"discriminator_reward must be one of {sorted(REWARDS)}, got {self.discriminator_reward!r}."
            )
        if _is_of_bitsandbytes(self.discriminator_optim) and not is_bitsandbytes_available():
            raise ImportError(
                f"discriminator_optim={self.discriminator_optim!r} is an optimizer of bitsandbytes, which is not "
                "installed: pip install 'hf-mgan[quantization]'."
            )
        self._check_at_least("discriminator_steps", 1)
        for name in (
            "discriminator_warmup_steps",
            "discriminator_weight_decay",
            "discriminator_learning_rate",
            "real_text_coef",
        ):
            self._check_at_least(name, 0)
        self._check_accuracies()
        self._check_average()
        self._check_credit()
        check_regularization(self.discriminator_loss, self.discriminator_regularization())
        check_replay(
            self.discriminator_replay_fraction, self.discriminator_replay_size, self.discriminator_density_offset
        )
        if self.discriminator_max_grad_norm <= 0:
            raise ValueError(
                f"discriminator_max_grad_norm must be greater than 0, got {self.discriminator_max_grad_norm}."
            )
        if self.discriminator_fresh_head and self.discriminator_label is not None:
            raise ValueError(
                "discriminator_label names a label of the head that the classifier has, and discriminator_fresh_head "
                "replaces that head by one with a single label: set one of the two."
            )
        if not 0 <= self.min_prompt_tokens <= self.max_prompt_tokens:
            raise ValueError(
                "The prompt takes from min_prompt_tokens to max_prompt_tokens tokens of a text, so they must be "
                f"0 <= min <= max, got {self.min_prompt_tokens} and {self.max_prompt_tokens}."
            )
        self.discriminator_arguments()  # the names of optimizer and schedule are checked while nothing is loaded yet

    def _check_at_least(self, name: str, least: Literal[0, 1]) -> None:
        if getattr(self, name) < least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")

    def _check_accuracies(self) -> None:
        for name in ("discriminator_warmup_accuracy", "discriminator_accuracy_ceiling"):
            value = getattr(self, name)
            if value is not None and not 0.5 < value <= 1:
                raise ValueError(f"{name} must be an accuracy above that of guessing, in (0.5, 1], got {value}.")
        if self.discriminator_warmup_accuracy is not None and not self.discriminator_warmup_steps:
            raise ValueError(
                "discriminator_warmup_accuracy ends the warm-up early, and there is none: set "
                "discriminator_warmup_steps to the most updates that it may take."
            )
        floor, ceiling = self.discriminator_accuracy_floor, self.discriminator_accuracy_ceiling
        if floor is not None and not 0 <= floor < (ceiling or 1):
            raise ValueError(
                "discriminator_accuracy_floor must be at least 0 and less than 1 and than "
                f"discriminator_accuracy_ceiling, or both players would rest, got {floor} and {ceiling}."
            )

    def _check_credit(self) -> None:
        if self.discriminator_credit not in ("sequence", "token"):
            raise ValueError(f"discriminator_credit must be 'sequence' or 'token', got {self.discriminator_credit!r}.")
        if not 0 <= self.discriminator_credit_discount <= 1:
            raise ValueError(
                f"discriminator_credit_discount must lie in [0, 1], got {self.discriminator_credit_discount}."
            )
        if self.discriminator_credit == "sequence":
            if self.discriminator_credit_discount != 1:
                raise ValueError(
                    "discriminator_credit_discount weighs the rewards of tokens, and a completion is paid as a whole: "
                    "set discriminator_credit='token' or leave it out."
                )
            return
        if self.discriminator_gradient_penalty:
            raise ValueError(PENALTY_ON_PREFIXES)
        for name, given, reason in (
            ("discriminator_density_offset", self.discriminator_density_offset, "is known of whole texts alone"),
            ("discriminator_length_neutral", self.discriminator_length_neutral, "corrects the rewards of whole texts"),
            ("loss_type='vespo'", self.loss_type == "vespo", "weighs whole completions"),
            (
                "off_policy_mask_threshold",
                self.off_policy_mask_threshold is not None,
                "leaves out whole completions by their advantage",
            ),
        ):
            if given:
                raise ValueError(
                    f"discriminator_credit='token' pays token by token, and {name} {reason}: leave one out."
                )
        if self.scale_rewards != "none":
            raise ValueError(
                "discriminator_credit='token' pays in the units of the reward, and scale_rewards="
                f"{self.scale_rewards!r} would divide the other rewards by the deviation of a group: set "
                "scale_rewards='none'."
            )

    def _check_average(self) -> None:
        if self.ema_decay is None:
            return
        if not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay must lie between 0 and 1, got {self.ema_decay}; without an average, None.")
        for name, given in (("use_vllm", self.use_vllm), ("fsdp", self.fsdp), ("deepspeed", self.deepspeed)):
            if given:
                raise ValueError(
                    f"ema_decay puts the average in the place of the weights while the model is evaluated and saved, "
                    f"and {name} keeps weights elsewhere. Leave out one of the two."
                )

    def discriminator_regularization(self) -> Regularization:
        """Return what keeps the discriminator smooth, as [`Discriminator`] takes it."""
        return Regularization(
            label_smoothing=self.discriminator_label_smoothing,
            logit_penalty=self.discriminator_logit_penalty,
            gradient_penalty=self.discriminator_gradient_penalty,
            gradient_penalty_type=self.discriminator_gradient_penalty_type,
            gradient_penalty_noise=self.discriminator_gradient_penalty_noise,
            token_dropout=self.discriminator_token_dropout,
        )

    def prompt_arguments(self) -> dict[str, Any]:
        """Return the arguments of [`prepare_dataset`] that say how rows become prompts."""
        return {
            "prompt_tokens": (self.min_prompt_tokens, self.max_prompt_tokens),
            "source_lang": self.source_lang,
            "target_lang": self.target_lang,
            "translation_template": self.translation_template,
            "seed": self.seed,
        }

    def discriminator_arguments(self) -> TrainingArguments:
        """Return the arguments of the discriminator's optimizer and schedule, under the names transformers reads."""
        args = copy.copy(self)
        # Betas, epsilon and the like are shared by the two players; arguments of the generator's own optimizer are
        # not.
        args.optim = OptimizerNames(self.discriminator_optim)
        args.learning_rate = self.discriminator_learning_rate
        args.weight_decay = self.discriminator_weight_decay
        args.lr_scheduler_type = SchedulerType(self.discriminator_lr_scheduler_type)
        args.lr_scheduler_kwargs = None
        args.optim_args = None
        args.warmup_steps = 0
        return args
