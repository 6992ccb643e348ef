"""The subcommand `hf-mgan train`: from flags or a YAML file to a trainer, and from there to two saved models.

It takes [`TrainArguments`], [`AdversarialConfig`], TRL's `ModelConfig` (adapters, quantisation) and
`DatasetMixtureConfig`, as TRL's own scripts do. All that is wrong with them is an error before a warm start.
"""

import copy
import gc
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from transformers import AutoConfig, EarlyStoppingCallback
from trl import (
    DatasetMixtureConfig,
    ModelConfig,
    ScriptArguments,
    get_dataset,
    get_peft_config,
    get_quantization_config,
)

from ..checks import COUNT, INDEX, NOT_NEGATIVE, Check, Number, check_fields, optional
from ..config import AdversarialConfig
from ..evaluation.evaluator import GeneratorEvaluator
from ..trainer import AdversarialTrainer
from ..training.build import check_arguments
from .arguments import check_alone, imported, named_safety_gate
from .data_files import Splits, are_local, split_of, splits_of
from .warm_start import warm_started


WHICH_SPLIT = (
    "say with --dataset_train_split which one to train on, with --dataset_test_split which one to evaluate on and to "
    "calibrate the discriminator on; --eval_strategy no and --discriminator_final_steps 0 need none. A folder with a "
    "file per split, such as train.jsonl and test.jsonl, is a dataset with both."
)
SETTINGS: dict[str, Check] = {
    "warm_start_steps": INDEX,
    "warm_start_learning_rate": NOT_NEGATIVE,
    "safety_gate_threshold": Number(above=0, most=1),
    "evaluation_samples": optional(COUNT),
    "early_stopping_patience": optional(COUNT),
}


@dataclass
class TrainArguments(ScriptArguments):
    """Arguments of `hf-mgan train` beside those of [`AdversarialConfig`] and of TRL.

    Args:
        dataset_name (`str` or `list[str]`, *optional*): Hub id or folder of the dataset; or a `.json`, `.jsonl`,
            `.csv`, `.tsv`, `.parquet` or `.txt` file, which may be compressed, several of them, or a glob. Files are
            all of `dataset_train_split`.
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
        evaluation_samples (`int`, *optional*): Samples of the generator that every evaluation compares with as many
            texts of the test split. None by default; see [`GeneratorEvaluator`].
        evaluation_encoder (`str`, *optional*): Encoder for the C2ST on embeddings, MAUVE and the Frechet distance of
            these samples, left out by default.
        early_stopping_patience (`int`, *optional*): Evaluations in a row without an improvement of
            `metric_for_best_model` after which training stops (transformers' `EarlyStoppingCallback`). Never by
            default. Works with `load_best_model_at_end` and `greater_is_better`.
    """

    dataset_name: list[str] | None = field(  # type: ignore[assignment]  # wider than upstream's
        default=None, metadata={"help": "Hub id, folder, files or glob of the dataset."}
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
    evaluation_samples: int | None = field(
        default=None, metadata={"help": "Samples that every evaluation compares with the test split."}
    )
    evaluation_encoder: str | None = field(
        default=None, metadata={"help": "Encoder for their C2ST on embeddings, MAUVE and Frechet distance."}
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Evaluations without a better metric_for_best_model until training stops."}
    )

    def __post_init__(self) -> None:
        check_fields(self, SETTINGS)


def train(
    script: TrainArguments, args: AdversarialConfig, model: ModelConfig, mixture: DatasetMixtureConfig
) -> AdversarialTrainer:
    """Train as the arguments say, save both models to `output_dir`, and push them if asked to.

    Args:
        script ([`TrainArguments`]): Data, discriminator, further rewards, warm start, safety gate, samples to evaluate
            and early stopping.
        args ([`AdversarialConfig`]): Settings of adversarial training.
        model (`ModelConfig`): The generator, its adapters and its quantisation.
        mixture (`DatasetMixtureConfig`): A mixture of datasets in place of `dataset_name`.

    Returns:
        [`AdversarialTrainer`]: After training.

    Raises:
        ValueError: If the generator, the discriminator or the data are missing, a split, a function or a label is not
            there, or settings contradict each other. All of it is said before a warm start.
    """
    check_models(script, model)
    data = load_splits(script, args, mixture)
    given = trainer_arguments(script, args, model, data)
    if script.warm_start_steps > 0 and not args.resume_from_checkpoint:  # a checkpoint is past it
        check_trainer(given)
        peft_config = given["peft_config"]
        given["model"], given["processing_class"] = warm_started(
            model,
            args,
            given["train_dataset"],
            peft_config,
            steps=script.warm_start_steps,
            learning_rate=script.warm_start_learning_rate,
        )
        # The model is loaded and has its adapters.
        given["quantization_config"] = given["peft_config"] = args.model_init_kwargs = None
    trainer = AdversarialTrainer(**given)
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model(args.output_dir)
    is_of_hub = script.dataset_name is not None and not are_local(script.dataset_name)
    dataset_name = cast("str | None", script.dataset_name) if is_of_hub else None
    trainer.create_model_card(dataset_name=dataset_name)
    trainer.accelerator.print(
        f"The generator is in {args.output_dir}, the discriminator in {args.output_dir}/discriminator."
    )
    if args.push_to_hub:
        trainer.push_to_hub(dataset_name=dataset_name)
    return trainer


def check_models(script: TrainArguments, model: ModelConfig) -> None:
    """Check that both models are named."""
    if not script.discriminator_name_or_path:
        raise ValueError(
            "There is no discriminator: give --discriminator_name_or_path, for example "
            "distilbert/distilbert-base-uncased."
        )
    if not model.model_name_or_path:
        raise ValueError("There is no generator: give --model_name_or_path, for example Qwen/Qwen2.5-0.5B.")


def load_splits(script: TrainArguments, args: AdversarialConfig, mixture: DatasetMixtureConfig) -> Splits:
    """Load the dataset, and check that it has the splits to train on and to evaluate on."""
    data = _loaded(script, mixture)
    for split in [script.dataset_train_split, *([script.dataset_test_split] if needs_held_out(args) else [])]:
        split_of(data, script.dataset_name or "The data", split, WHICH_SPLIT)
    return data


def needs_held_out(args: AdversarialConfig) -> bool:
    """Return whether training needs the test split: for evaluations, or for the discriminator's final updates."""
    return args.eval_strategy != "no" or args.discriminator_final_steps > 0


def _loaded(script: TrainArguments, mixture: DatasetMixtureConfig) -> Splits:
    if mixture.datasets and script.dataset_name:
        raise ValueError("Give either dataset_name or a mixture of datasets, not both.")
    if mixture.datasets:
        return get_dataset(mixture)
    if not script.dataset_name:
        raise ValueError(
            "There is no data: give --dataset_name (a Hub id, a folder or a file), or datasets in a YAML file."
        )
    return splits_of(script.dataset_name, script.dataset_config, script.dataset_train_split, script.dataset_streaming)


def trainer_arguments(
    script: TrainArguments, args: AdversarialConfig, model: ModelConfig, data: Splits
) -> dict[str, Any]:
    """Return the arguments of [`AdversarialTrainer`] that the command's name; those of a model go into `args` too."""
    args.model_init_kwargs = {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        **(args.model_init_kwargs or {}),
    }
    return {
        "model": model.model_name_or_path,
        "discriminator": script.discriminator_name_or_path,
        "args": args,
        "train_dataset": data[script.dataset_train_split],
        "eval_dataset": data[script.dataset_test_split] if needs_held_out(args) else None,
        "reward_funcs": [_reward(name) for name in script.reward_funcs or []],
        "safety_gate": named_safety_gate(script),
        "evaluator": _evaluator(script, args, data),
        "callbacks": _early_stopping(script, args),
        "quantization_config": get_quantization_config(model),
        "peft_config": get_peft_config(model),
    }


def _reward(name: str) -> str | Callable:
    """Return the function that is named, or the id or folder of a classifier that is there."""
    reward = imported(name, "reward_funcs")
    if isinstance(reward, str):
        try:
            AutoConfig.from_pretrained(reward)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"reward_funcs names {reward!r}, which cannot be loaded: {error} Give module.function, or the Hub id "
                "or folder of a classifier."
            ) from error
    return reward


def check_trainer(given: dict[str, Any]) -> None:
    """Refuse all that the trainer would refuse, before a warm start that may take hours.

    The trainer is made for that with its optimizers, and dropped: both models are loaded, the rewards too, and a
    repository is made on the Hub where the run is to be pushed. vLLM, which cannot be started twice, is left out.
    """
    defaults = {name: each.default for name, each in inspect.signature(AdversarialTrainer).parameters.items()}
    check_arguments({**defaults, **given}, given["args"], given["safety_gate"])
    args = copy.copy(given["args"])
    args.model_init_kwargs = copy.copy(args.model_init_kwargs)  # TRL writes into it
    args.use_vllm = False
    trainer = AdversarialTrainer(**{**given, "args": args})
    trainer.create_optimizer_and_scheduler(max(args.max_steps, 1))
    del trainer
    gc.collect()  # a trainer and its callbacks hold one another
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _evaluator(script: TrainArguments, args: AdversarialConfig, data: Splits) -> GeneratorEvaluator | None:
    """Make the evaluator of samples that the arguments ask for, if they do."""
    check_alone(script, "evaluation_samples", ["evaluation_encoder"])
    if script.evaluation_samples is None:
        return None
    _check_evaluations_come(args, f"evaluation_samples={script.evaluation_samples}")
    held_out = data[script.dataset_test_split]
    return GeneratorEvaluator(held_out, script.evaluation_samples, encoder=script.evaluation_encoder, seed=args.seed)


def _early_stopping(script: TrainArguments, args: AdversarialConfig) -> list[EarlyStoppingCallback]:
    """Make the callback that stops training, if the arguments ask for it."""
    patience = script.early_stopping_patience
    if patience is None:
        return []
    if patience < 1:
        raise ValueError(f"early_stopping_patience must be at least 1, got {patience}; for no early stopping, None.")
    _check_evaluations_come(args, f"early_stopping_patience={patience}")
    return [EarlyStoppingCallback(patience)]


def _check_evaluations_come(args: AdversarialConfig, setting: str) -> None:
    if args.eval_strategy == "no":
        raise ValueError(
            f"{setting} needs evaluations, and there are none: set --eval_strategy, and with --dataset_test_split "
            "what to evaluate on."
        )
