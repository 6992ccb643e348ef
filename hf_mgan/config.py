"""Settings of adversarial training: those of TRL's GRPO, and the discriminator's."""

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from accelerate.utils import parse_flag_from_env
from transformers import SchedulerType, TrainingArguments
from transformers.training_args import OptimizerNames
from transformers.utils import is_bitsandbytes_available, is_torch_bf16_gpu_available, is_torch_xla_available
from trl import GRPOConfig

from .checks import check_fields, check_json
from .config_checks import (
    DICT_SETTINGS,
    INHERITED,
    MODEL_INIT_KEYS,
    OPTIM_KEYS,
    REGULARIZATION_KEYS,
    SETTINGS,
    UPDATE_GATING_KEYS,
)
from .data import TRANSLATION_TEMPLATE
from .discriminator import Regularization, check_optimizer, check_regularization
from .metrics.units import Unit
from .objectives import LOSSES, REWARDS


# Names of `TrainingArguments`, with what the discriminator has by default.
OPTIM_DEFAULTS: dict[str, Any] = {
    "optim": "adamw_torch",
    "optim_args": None,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "lr_scheduler_type": "constant",
    "lr_scheduler_kwargs": None,
    "warmup_steps": 0,
}


@dataclass
class AdversarialConfig(GRPOConfig):
    r"""Configuration of [`AdversarialTrainer`].

    Everything of [`~trl.GRPOConfig`] keeps its meaning and its default, unless it stands below. The rest belongs to
    the discriminator or to the making of prompts. "Bits" are Jensen-Shannon divergence to the demo's language, from
    docs/recipe.md.

    Args:
        max_completion_length (`int`, *optional*, defaults to 512): Tokens at which completions are cut, and real texts
            with them: None, which cuts completions at 20 tokens and real texts nowhere, is refused.
        learning_rate (`float`, *optional*, defaults to 1e-5): Learning rate of the generator. TRL's 1e-6 is meant for
            whole models; adapters want more.
        bf16 (`bool`, *optional*): Whether both models run under bfloat16 autocast. By default they do where the device
            has it and `fp16` is not set; on a CPU they run in float32. TRL's default, which is to want it everywhere,
            is refused by transformers on a CPU.
        discriminator_loss (`str`, *optional*, defaults to `"bce"`): What the discriminator minimises: `"bce"`,
            `"bradley_terry"` (each completion against the reference of its own prompt), `"relativistic_average"`,
            `"hinge"`, `"least_squares"` or `"wasserstein"`.
        discriminator_reward (`str`, *optional*, defaults to `"minimax"`): Reward of the generator as a function of the
            logit: `"log_d"`, `"minimax"`, `"logit"` or `"probability"`. No other pair of loss and reward ends below
            `"bce"` with `"minimax"` beyond the noise (0.281 bits; maximum likelihood 0.342).
        discriminator_weight (`float`, *optional*, defaults to 1.0): Weight of this reward beside those of
            `reward_funcs`.
        discriminator_learning_rate (`float`, *optional*, defaults to 5e-5): Learning rate of the discriminator's
            optimizer.
        discriminator_steps (`int`, *optional*, defaults to 1): Updates of the discriminator per generation batch,
            those of its warm-up and its final ones included. The reward is taken before the first; each draws real
            texts of its own, but for final ones that see prompts.
        discriminator_warmup_steps (`int`, *optional*, defaults to 20): Updates of the discriminator alone, on
            completions of the generator as it starts, before the generator's first step. Each batch of completions
            serves for `discriminator_steps` of them, the last for those that are left. They are not counted in
            `max_steps`; a log entry follows each batch that passes a multiple of `logging_steps`, and the last one.
            Without a warm-up training ends 0.030 bits higher; 20 updates give 0.017 of the 0.025 bits that 200 give
            (seed 0), of 256 texts each: smaller batches, and texts that are hard to tell from real ones, need more.
        discriminator_final_steps (`int`, *optional*, defaults to 0): Updates of the discriminator, at most, after the
            generator's last step, on samples of the generator as it is then; they stop early on `eval_dataset`, which
            they need, and end with a calibration. They make the discriminator fit to guide generation
            ([`~decoding.guided_sample`]): 2000 of them, without any training of the generator, and two draws per text
            bring 0.364 bits to 0.120 (docs/guided_language.md). With `num_train_epochs=0` they are all of the
            training. See [`~training.final_updates.fit_discriminator`].
        discriminator_max_length (`int`, *optional*): Texts are cut to this many of the discriminator's tokens. The
            most that the discriminator can take by default.
        discriminator_batch_size (`int`, *optional*): Texts per forward pass of the discriminator, if all of them at
            once are too many for the memory. The update stays the same.
        discriminator_label (`str`, *optional*): Name or index of the label that means real, for a classifier of two
            labels or more. Naming it keeps the classifier's head.
        discriminator_replay_fraction (`float`, *optional*, defaults to 0.0): Share in [0, 1) of the generated half of
            the discriminator's loss that consists of completions of earlier batches (-0.002 ± 0.003 bits at 0.25).
        discriminator_optim_kwargs (`dict` or `str`, *optional*): Optimizer and schedule of the discriminator, under
            the names of `TrainingArguments`: `optim` (`"adamw_torch"` by default), `optim_args`, `weight_decay` (0.0,
            of matrices), `max_grad_norm` (1.0), `lr_scheduler_type` (`"constant"`; it runs over all updates of the
            discriminator), `lr_scheduler_kwargs`, `warmup_steps` (0), `adam_beta1`, `adam_beta2`, `adam_epsilon` (the
            generator's).
        discriminator_model_init_kwargs (`dict` or `str`, *optional*): How the discriminator is loaded: `fresh_head` (a
            classifier that was trained for something else gets a new head with one label; a model without one gets it
            anyway), `gradient_checkpointing` (activations are computed again in the backward pass: less memory, more
            time), `revision`, `attn_implementation`, `prefixes` (it learns from all prefixes of a text, which takes a
            causal one, and which `"token_rejection"` needs at generation).
        discriminator_regularization (`dict` or `str`, *optional*): What keeps the discriminator from being too
            confident: `label_smoothing` (one-sided, [0, 0.5), for `"bce"` and `"least_squares"`), `logit_penalty`
            (coefficient of the mean square of the logits), `token_dropout` (probability in [0, 1) that a token is
            replaced before an update, in real and generated text alike). None has measured as better than nothing.
        discriminator_update_gating (`dict` or `str`, *optional*): Accuracies at which a model skips its update:
            above `ceiling` in (0.5, 1] the discriminator skips that of the next batch, below `floor` in [0, 1) the
            generator skips that of the same batch. Not during the warm-up (+0.003 ± 0.004 bits at a ceiling of 0.68).
        real_text_coef (`float`, *optional*, defaults to 0.0): Coefficient of the generator's cross-entropy on real
            texts, in nats per token, in its loss: an anchor against collapse. It is gamma of PPO-ptx (Ouyang et al.
            2022, [2203.02155](https://huggingface.co/papers/2203.02155), equation 2). The other anchor is `beta`, the
            KL divergence to the starting model, as in [`~trl.GRPOConfig`].
        unit (`str`, *optional*, defaults to `"auto"`): What texts are counted in, for the metrics of a batch, for the
            watchdog that reads them and for [`GeneratorEvaluator`]: `"word"`, `"character"`, or `"auto"` for words
            where spaces part them and characters of scripts that have none, such as Chinese; see
            [`~metrics.split_into_units`].
        min_prompt_tokens (`int`, *optional*, defaults to 0): For datasets with a `text` column: the prompt is the
            start of the sequence and the first k tokens of the text, k drawn uniformly from this number to
            `max_prompt_tokens`.
        max_prompt_tokens (`int`, *optional*, defaults to 0): The greatest k. With 0 the generator writes whole texts.
        max_text_tokens (`int`, *optional*): For datasets with a `text` column: a longer text is split into windows of
            as many tokens, each of which is a row. By default a text is one row, cut at `max_completion_length`.
        dataset_num_proc (`int`, *optional*): Processes that split the rows of a map-style dataset, as in
            [`~trl.SFTConfig`]; one by default.
        source_lang (`str`, *optional*): For datasets with a `translation` column: language of the prompt; its first
            key by default.
        target_lang (`str`, *optional*): Language of the completion; the second key by default.
        translation_template (`str`, *optional*): The prompt, with the fields `source_lang`, `target_lang` and
            `source`.

    Raises:
        ImportError: If an optimizer needs bitsandbytes, which is not installed.
        TypeError: If a value is of another type: a string is no number, and no more is True.
        ValueError: If a value is out of range, a dict setting has a key that it does not take, or settings contradict
            each other.
    """

    # Given as JSON on the command line, as upstream's dict settings are.
    _VALID_DICT_FIELDS = [  # noqa: RUF012  # as upstream declares it; an annotation would make it a field
        *GRPOConfig._VALID_DICT_FIELDS,
        "discriminator_optim_kwargs",
        "discriminator_model_init_kwargs",
        "discriminator_regularization",
        "discriminator_update_gating",
    ]

    # Whether the discriminator gives a logit to every prefix of a text, which `experimental.token_credit` needs.
    scores_prefixes = False

    if TYPE_CHECKING:
        # What these are after `__post_init__`, which puts a value in the place of None and a dict in the place of its
        # JSON; upstream declares what they may be before. When the program runs, the fields are upstream's.
        output_dir: str = "trainer_output"
        steps_per_generation: int = 1
        model_init_kwargs: dict[str, Any] | None = None

    learning_rate: float = field(default=1e-5, metadata={"help": "Learning rate of the generator."})
    bf16: bool | None = field(  # type: ignore[assignment]  # as TRL has it; None is the default that is worked out
        default=None, metadata={"help": "Whether both models run under bfloat16; by default where the device has it."}
    )
    discriminator_loss: str = field(
        default="bce", metadata={"help": "What the discriminator minimises.", "choices": sorted(LOSSES)}
    )
    discriminator_reward: str = field(
        default="minimax",
        metadata={"help": "Reward of the generator as a function of the logit.", "choices": sorted(REWARDS)},
    )
    discriminator_weight: float = field(
        default=1.0, metadata={"help": "Weight of the discriminator's reward beside those of `reward_funcs`."}
    )
    discriminator_learning_rate: float = field(
        default=5e-5, metadata={"help": "Learning rate of the discriminator's optimizer."}
    )
    discriminator_steps: int = field(
        default=1, metadata={"help": "Updates of the discriminator per generation batch."}
    )
    discriminator_warmup_steps: int = field(
        default=20, metadata={"help": "Updates of the discriminator alone, before the generator's first step."}
    )
    discriminator_final_steps: int = field(
        default=0,
        metadata={"help": "Updates of the discriminator after the generator's last step, to guide generation."},
    )
    discriminator_max_length: int | None = field(
        default=None, metadata={"help": "Texts are cut to this many of the discriminator's tokens."}
    )
    discriminator_batch_size: int | None = field(
        default=None, metadata={"help": "Texts per forward pass of the discriminator. All of them by default."}
    )
    discriminator_label: str | None = field(
        default=None, metadata={"help": "Name or index of the label that means real, where there are several."}
    )
    discriminator_replay_fraction: float = field(
        default=0.0, metadata={"help": "Share in [0, 1) of the generated half of its loss that is of earlier batches."}
    )
    discriminator_optim_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": f"Optimizer and schedule of the discriminator: {OPTIM_KEYS}."},
    )
    discriminator_model_init_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": f"How the discriminator is loaded: {MODEL_INIT_KEYS}."}
    )
    discriminator_regularization: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": f"Regularisation of the discriminator: {REGULARIZATION_KEYS}."},
    )
    discriminator_update_gating: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": f"Accuracies at which updates are skipped: {UPDATE_GATING_KEYS}."},
    )
    real_text_coef: float = field(
        default=0.0, metadata={"help": "Coefficient of the generator's cross-entropy on real texts in its loss."}
    )
    unit: Unit = field(
        default="auto", metadata={"help": "What texts are counted in; by default what their script asks for."}
    )
    min_prompt_tokens: int = field(
        default=0, metadata={"help": "Least number of tokens of a `text` that become its prompt."}
    )
    max_prompt_tokens: int = field(
        default=0, metadata={"help": "Greatest number of tokens of a `text` that become its prompt."}
    )
    max_text_tokens: int | None = field(
        default=None, metadata={"help": "Tokens of the windows that a longer `text` is split into."}
    )
    dataset_num_proc: int | None = field(
        default=None, metadata={"help": "Processes that split the rows of a dataset."}
    )
    source_lang: str | None = field(default=None, metadata={"help": "Language of the prompt of a `translation`."})
    target_lang: str | None = field(default=None, metadata={"help": "Language of the completion of a `translation`."})
    translation_template: str = field(
        default=TRANSLATION_TEMPLATE,
        metadata={"help": "Prompt of a `translation`, with the fields source_lang, target_lang and source."},
    )

    def __post_init__(self) -> None:
        check_fields(self, INHERITED)
        for name in DICT_SETTINGS:
            check_json(name, getattr(self, name))
        if self.bf16 is None and not self.fp16:
            self.bf16 = _has_bf16(self.use_cpu)
        super().__post_init__()
        check_fields(self, SETTINGS)
        if self.min_prompt_tokens > self.max_prompt_tokens:
            raise ValueError(
                "The prompt takes from min_prompt_tokens to max_prompt_tokens tokens of a text, so they must be "
                f"0 <= min <= max, got {self.min_prompt_tokens} and {self.max_prompt_tokens}."
            )
        check_regularization(self.discriminator_loss, self.regularization())
        self._check_update_gating()
        if self.model_init("fresh_head") and self.discriminator_label is not None:
            raise ValueError(
                "discriminator_label names a label of the head that the classifier has, and fresh_head in "
                "discriminator_model_init_kwargs replaces that head by one with a single label: set one of the two."
            )
        # Names of optimizers and schedules are checked while nothing is loaded yet.
        optim_args = self.discriminator_training_args()
        if _is_of_bitsandbytes(optim_args.optim) and not is_bitsandbytes_available():
            raise ImportError(
                f"discriminator_optim_kwargs has optim={OptimizerNames(optim_args.optim).value!r}, an "
                "optimizer of bitsandbytes, which is not installed: pip install 'hf-mgan[quantization]'."
            )
        check_optimizer(optim_args)

    def check(self) -> None:
        """Check all settings again, of which some may have been changed since they were made.

        Raises:
            TypeError: If one is of another type.
            ValueError: If one is out of range.
        """
        check_fields(self, {**INHERITED, **SETTINGS})

    def _given(self, name: str) -> dict[str, Any]:
        """Return a dict setting, {} where it is None."""
        return DICT_SETTINGS[name](name, getattr(self, name)) or {}

    def _check_update_gating(self) -> None:
        gating = self.update_gating()
        ceiling, floor = gating.get("ceiling"), gating.get("floor")
        if floor is not None and ceiling is not None and floor >= ceiling:
            raise ValueError(
                "floor in discriminator_update_gating must be less than ceiling, or both models would skip their "
                f"updates, got {floor} and {ceiling}."
            )

    def regularization(self) -> Regularization:
        """Return what keeps the discriminator from being too confident, as [`Discriminator`] takes it."""
        return Regularization(**self._given("discriminator_regularization"))

    def update_gating(self) -> dict[str, float]:
        """Return the accuracies at which updates are skipped: `ceiling`, `floor`, both or neither."""
        return self._given("discriminator_update_gating")

    def model_init(self, key: str) -> Any:
        """Return one value of `discriminator_model_init_kwargs`, None where it is not given."""
        return self._given("discriminator_model_init_kwargs").get(key)

    def discriminator_training_args(self) -> TrainingArguments:
        """Return the arguments of the discriminator's optimizer and schedule, under the names transformers reads."""
        given = {**OPTIM_DEFAULTS, **self._given("discriminator_optim_kwargs")}
        args = copy.copy(self)
        args.learning_rate = self.discriminator_learning_rate
        for name, value in given.items():
            setattr(args, name, value)
        args.optim = OptimizerNames(args.optim)
        args.lr_scheduler_type = SchedulerType(args.lr_scheduler_type)
        return args

    def prompt_arguments(self) -> dict[str, Any]:
        """Return the arguments of [`prepare_dataset`] that say how rows become prompts."""
        return {
            "prompt_tokens": (self.min_prompt_tokens, self.max_prompt_tokens),
            "max_text_tokens": self.max_text_tokens,
            "num_proc": self.dataset_num_proc,
            "source_lang": self.source_lang,
            "target_lang": self.target_lang,
            "translation_template": self.translation_template,
            "seed": self.seed,
        }


def _has_bf16(use_cpu: bool) -> bool:
    """Return whether training runs on a device for which transformers lets bf16 through."""
    on_cpu = use_cpu or parse_flag_from_env("ACCELERATE_USE_CPU")
    return not on_cpu and (is_torch_bf16_gpu_available() or is_torch_xla_available())


def _is_of_bitsandbytes(optimizer: str) -> bool:
    names = ("8bit", "bnb", "paged", "lion", "ademamix")
    return any(name in optimizer for name in names) and not optimizer.startswith("adamw_torch")
