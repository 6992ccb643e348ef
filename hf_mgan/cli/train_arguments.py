"""Arguments of `hf-mgan train` that neither [`AdversarialConfig`] nor TRL's `ModelConfig` has.

In: flags or a YAML file, through the parser. Out: values, each checked by itself.
"""

from dataclasses import dataclass, field

from trl import ScriptArguments

from ..checks import COUNT, INDEX, NOT_NEGATIVE, Check, Number, check_fields, optional


SETTINGS: dict[str, Check] = {
    "warm_start_steps": INDEX,
    "warm_start_learning_rate": NOT_NEGATIVE,
    "safety_gate_threshold": Number(above=0, most=1),
    "num_samples": optional(COUNT),
    "early_stopping_patience": optional(COUNT),
}


@dataclass
class TrainArguments(ScriptArguments):
    """Arguments of `hf-mgan train` beside those of [`AdversarialConfig`] and of TRL.

    Args:
        dataset_name (`str` or `list[str]`, *optional*): Hub id or folder of the dataset; or a `.json`, `.jsonl`,
            `.csv`, `.tsv`, `.parquet` or `.txt` file, which may be compressed, several of them, or a glob. Files are
            all of `dataset_train_split`.
        eval_dataset_name (`str` or `list[str]`, *optional*): Held-out texts that are not in `dataset_name`: the same
            kinds of places. Files are all of `dataset_test_split`.
        discriminator_name_or_path (`str`): Hub id or folder of the discriminator.
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
        num_samples (`int`, *optional*): Samples of the generator that every evaluation compares with as many
            texts of the test split. None by default; see [`GeneratorEvaluator`].
        encoder (`str`, *optional*): Encoder for the C2ST on embeddings, MAUVE and the Frechet distance of
            these samples, left out by default.
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
    num_samples: int | None = field(
        default=None, metadata={"help": "Samples that every evaluation compares with the test split."}
    )
    encoder: str | None = field(
        default=None, metadata={"help": "Encoder for their C2ST on embeddings, MAUVE and Frechet distance."}
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Evaluations without a better metric_for_best_model until training stops."}
    )

    def __post_init__(self) -> None:
        check_fields(self, SETTINGS)
