"""Arguments of `hf-mgan train` that neither [`AdversarialConfig`] nor TRL's `ModelConfig` has.

In: flags or a YAML file, through the parser. Out: values, each checked by itself.
"""

import json
from dataclasses import dataclass, field, fields
from typing import Any

from peft import PeftConfig
from trl import ModelConfig, ScriptArguments, get_peft_config

from ..checks import COUNT, INDEX, NOT_NEGATIVE, SHARE, Check, Dict, Number, check_fields, check_json, optional
from ..watchdog.failure_modes import THRESHOLDS


# What says how adapters, or 4 bits, are made, and nothing without them.
DETAILS = {
    "use_peft": (
        "lora_r",
        "lora_alpha",
        "lora_dropout",
        "lora_target_modules",
        "lora_target_parameters",
        "lora_modules_to_save",
        "use_rslora",
        "use_dora",
    ),
    "load_in_4bit": ("bnb_4bit_quant_type", "use_bnb_nested_quant", "bnb_4bit_quant_storage"),
}
PREFIX = "discriminator_"
SETTINGS: dict[str, Check] = {
    "warm_start_steps": INDEX,
    "warm_start_learning_rate": NOT_NEGATIVE,
    "safety_gate_threshold": Number(above=0, most=1),
    "num_samples": optional(COUNT),
    "early_stopping_patience": optional(COUNT),
    "max_eval_samples": optional(COUNT),
    "safety_gate_margin": NOT_NEGATIVE,
    "watchdog_patience": COUNT,
    "watchdog_thresholds": Dict(keys=THRESHOLDS, optional=True),
    "watchdog_unsafe_limit": optional(SHARE),
}


@dataclass
class DiscriminatorArguments:
    """How the discriminator is loaded, under the names of TRL's `ModelConfig` behind `discriminator_`.

    Args:
        discriminator_model_revision (`str`, *optional*): Branch, tag or commit.
        discriminator_tokenizer_name_or_path (`str`, *optional*): Its tokenizer, if it is not beside it.
        discriminator_use_peft (`bool`, *optional*, defaults to `False`): Whether adapters are trained in place of the
            whole discriminator; quantised weights need them.
        discriminator_lora_r, discriminator_lora_alpha, discriminator_lora_dropout, discriminator_lora_target_modules,
            discriminator_lora_modules_to_save, discriminator_use_rslora, discriminator_use_dora (*optional*): The
            adapters, as in `ModelConfig`.
        discriminator_load_in_8bit, discriminator_load_in_4bit, discriminator_bnb_4bit_quant_type,
            discriminator_use_bnb_nested_quant (*optional*): Its quantisation, as in `ModelConfig`.
    """

    discriminator_model_revision: str | None = field(default=None, metadata={"help": "Its branch, tag or commit."})
    discriminator_tokenizer_name_or_path: str | None = field(
        default=None, metadata={"help": "Hub id or folder of its tokenizer, if it is not beside it."}
    )
    discriminator_use_peft: bool = field(default=False, metadata={"help": "Whether adapters of it are trained."})
    discriminator_lora_r: int = field(default=16, metadata={"help": "Rank of its adapters."})
    discriminator_lora_alpha: int = field(default=32, metadata={"help": "Alpha of its adapters."})
    discriminator_lora_dropout: float = field(default=0.05, metadata={"help": "Dropout of its adapters."})
    discriminator_lora_target_modules: list[str] | None = field(
        default=None, metadata={"help": "Modules that get adapters, such as all-linear."}
    )
    discriminator_lora_modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Modules that are trained whole beside its adapters."}
    )
    discriminator_use_rslora: bool = field(default=False, metadata={"help": "Whether its LoRA is rank-stabilised."})
    discriminator_use_dora: bool = field(default=False, metadata={"help": "Whether its adapters are DoRA."})
    discriminator_load_in_8bit: bool = field(default=False, metadata={"help": "Whether it is in 8 bits."})
    discriminator_load_in_4bit: bool = field(default=False, metadata={"help": "Whether it is in 4 bits."})
    discriminator_bnb_4bit_quant_type: str = field(
        default="nf4", metadata={"help": "Kind of its 4 bits.", "choices": ["fp4", "nf4"]}
    )
    discriminator_use_bnb_nested_quant: bool = field(
        default=False, metadata={"help": "Whether its 4 bits are quantised twice."}
    )

    def discriminator_model_config(self, bf16: bool) -> ModelConfig:
        """Return its adapters and its quantisation as TRL takes them.

        Args:
            bf16 (`bool`): Whether 4-bit weights compute in bfloat16.
        """
        names = {one.name for one in fields(ModelConfig)} & {one.name.removeprefix(PREFIX) for one in fields(self)}
        values = {name: getattr(self, f"{PREFIX}{name}") for name in names if hasattr(self, f"{PREFIX}{name}")}
        return ModelConfig(**values, lora_task_type="SEQ_CLS", dtype="bfloat16" if bf16 else "float32")


def check_details(config: ModelConfig, prefix: str = "") -> None:
    """Refuse details of adapters where there are none, and of 4 bits where there are none.

    Args:
        config (`ModelConfig`): Of the generator, or of the discriminator.
        prefix (`str`, *optional*): What its flags begin with.

    Raises:
        ValueError: If a detail would be ignored.
    """
    default = ModelConfig()
    for switch, names in DETAILS.items():
        for name in names if not getattr(config, switch) else ():
            if (value := getattr(config, name)) != getattr(default, name):
                raise ValueError(
                    f"{prefix}{name}={value!r} has no effect without {prefix}{switch}: give both or neither."
                )


def adapters_of(config: ModelConfig) -> PeftConfig | None:
    """Return the adapters that TRL's arguments describe, if there are to be some.

    TRL hands a single name of modules over as a string, which PEFT takes for a pattern of the whole path of a module
    and finds nowhere: it becomes a list again.
    """
    adapters = get_peft_config(config)
    modules = config.lora_target_modules
    if adapters is not None and isinstance(modules, str) and modules.isidentifier():
        adapters.target_modules = {modules}  # as a list becomes
    return adapters


@dataclass
class TrainArguments(DiscriminatorArguments, ScriptArguments):
    """Arguments of `hf-mgan train` beside those of [`AdversarialConfig`] and of TRL.

    Args:
        dataset_name (`str` or `list[str]`, *optional*): Hub id or folder of the dataset; or a `.json`, `.jsonl`,
            `.csv`, `.tsv`, `.parquet` or `.txt` file, which may be compressed, several of them, or a glob. Files are
            all of `dataset_train_split`.
        eval_dataset_name (`str` or `list[str]`, *optional*): Held-out texts that are not in `dataset_name`: the same
            kinds of places. Files are all of `dataset_test_split`.
        max_eval_samples (`int`, *optional*): Rows of the held-out texts that evaluations generate for, and that the
            final updates take; the first ones. All of them by default, each with `num_generations_eval` completions.
        real_dataset_name (`str` or `list[str]`, *optional*): Real texts (column `text`) that belong to no prompt: the
            same kinds of places, the split `dataset_train_split`. See `real_dataset` of [`AdversarialTrainer`].
        real_dataset_config (`str`, *optional*): Its configuration.
        tokenizer_name_or_path (`str`, *optional*): The generator's tokenizer, if it is not beside it.
        discriminator_name_or_path (`str`): Hub id or folder of the discriminator.
        share_base (`bool`, *optional*, defaults to `False`): Whether the discriminator is the generator's base with a
            new head and adapters of its own, its weights held once, in place of `discriminator_name_or_path`. Both
            models need adapters.
        reward_funcs (`list[str]`, *optional*): Further rewards: Hub ids of classifiers, or functions as
            `module.function`.
        warm_start_steps (`int`, *optional*, defaults to 0): Steps of supervised fine-tuning (TRL's `SFTTrainer`) on
            the same data before adversarial training, with the same batch size, adapters and seed. What comes of it is
            saved in `warm_start/` of `output_dir`.
        warm_start_learning_rate (`float`, *optional*, defaults to 2e-4): Its learning rate.
        safety_gate_name_or_path (`str`, *optional*): Tells unsafe completions, which then rank below every safe one of
            their group: Hub id or folder of a classifier, or a function as `module.function`, from a list of
            completions to their probabilities of being unsafe. No gate by default; see [`~safety.SafetyGate`].
        safety_gate_label (`str`, *optional*): Name or index of the classifier's label that means unsafe. Needed where
            it has several.
        safety_gate_threshold (`float`, *optional*, defaults to 0.5): P(unsafe) in (0, 1] from which on a completion is
            unsafe.
        safety_gate_margin (`float`, *optional*, defaults to 2.0): By how much unsafe completions rank below safe ones.
        safety_gate_with_prompt (`bool`, *optional*, defaults to `False`): Whether the classifier sees the prompt.
        num_samples (`int`, *optional*): Samples of the generator that every evaluation compares with as many
            texts of the test split. None by default; see [`GeneratorEvaluator`].
        encoder (`str`, *optional*): Encoder for the C2ST on embeddings, MAUVE and the Frechet distance of
            these samples, left out by default.
        copies (`bool`, *optional*, defaults to `False`): Whether these samples are looked for in the training texts.
        bleu (`bool`, *optional*, defaults to `False`): Whether BLEU and chrF against the references are
            among their metrics.
        reverse_perplexity (`bool`, *optional*, defaults to `False`): Whether a small model is trained on them.
        watchdog_patience (`int`, *optional*, defaults to 10): See [`Watchdog`].
        watchdog_thresholds (`dict` or `str`, *optional*): Those of [`~watchdog.Thresholds`] that are not to be the
            defaults.
        watchdog_unsafe_limit (`float`, *optional*): Share of unsafe completions above which the watchdog warns.
        early_stopping_patience (`int`, *optional*): Evaluations in a row without an improvement of
            `metric_for_best_model` after which training stops (transformers' `EarlyStoppingCallback`). Never by
            default. Works with `load_best_model_at_end` and `greater_is_better`.
    """

    dataset_name: list[str] | None = field(  # type: ignore[assignment]  # wider than upstream's
        default=None, metadata={"help": "Hub id, folder, files or glob of the dataset."}
    )
    eval_dataset_name: list[str] | None = field(
        default=None, metadata={"help": "Hub id, folder, files or glob of held-out texts, if they are elsewhere."}
    )
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Rows of the held-out texts that evaluations take; the first ones."}
    )
    real_dataset_name: list[str] | None = field(
        default=None, metadata={"help": "Hub id, folder, files or glob of real texts that belong to no prompt."}
    )
    real_dataset_config: str | None = field(default=None, metadata={"help": "Its configuration."})
    tokenizer_name_or_path: str | None = field(
        default=None, metadata={"help": "Hub id or folder of the generator's tokenizer, if it is not beside it."}
    )
    share_base: bool = field(
        default=False, metadata={"help": "Whether the discriminator is a head and adapters on the generator's base."}
    )
    discriminator_name_or_path: str = field(default="", metadata={"help": "Hub id or folder of the discriminator."})
    reward_funcs: list[str] | None = field(
        default=None, metadata={"help": "Further rewards: ids of classifiers, or functions as `module.function`."}
    )
    warm_start_steps: int = field(
        default=0, metadata={"help": "Steps of supervised fine-tuning on the same data before adversarial training."}
    )
    warm_start_learning_rate: float = field(default=2e-4, metadata={"help": "Learning rate of the warm start."})
    safety_gate_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Classifier of unsafe completions: Hub id, folder, or function as `module.function`."},
    )
    safety_gate_label: str | None = field(
        default=None, metadata={"help": "Name or index of its label that means unsafe, where there are several."}
    )
    safety_gate_threshold: float = field(
        default=0.5, metadata={"help": "P(unsafe) in (0, 1] from which on a completion is unsafe."}
    )
    safety_gate_margin: float = field(
        default=2.0, metadata={"help": "By how much unsafe completions rank below safe ones."}
    )
    safety_gate_with_prompt: bool = field(default=False, metadata={"help": "Whether the classifier sees the prompt."})
    num_samples: int | None = field(
        default=None, metadata={"help": "Samples that every evaluation compares with the test split."}
    )
    encoder: str | None = field(
        default=None, metadata={"help": "Encoder for their C2ST on embeddings, MAUVE and Frechet distance."}
    )
    copies: bool = field(default=False, metadata={"help": "Whether samples are looked for in the training texts."})
    bleu: bool = field(default=False, metadata={"help": "Whether samples have BLEU and chrF against the references."})
    reverse_perplexity: bool = field(
        default=False, metadata={"help": "Whether a small model is trained on the samples of each evaluation."}
    )
    watchdog_patience: int = field(
        default=10, metadata={"help": "Steps of training that the watchdog tells a failure from."}
    )
    watchdog_thresholds: dict[str, Any] | str | None = field(
        default=None, metadata={"help": f"Where the watchdog warns: {', '.join(THRESHOLDS)}."}
    )
    watchdog_unsafe_limit: float | None = field(
        default=None, metadata={"help": "Share of unsafe completions above which the watchdog warns."}
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Evaluations without a better metric_for_best_model until training stops."}
    )

    def __post_init__(self) -> None:
        check_json("watchdog_thresholds", self.watchdog_thresholds)
        if isinstance(self.watchdog_thresholds, str) and self.watchdog_thresholds.startswith("{"):
            self.watchdog_thresholds = json.loads(self.watchdog_thresholds)
        check_fields(self, SETTINGS)
