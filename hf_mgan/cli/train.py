"""The command `hf-mgan`: `train` plays the game, `evaluate` measures generators, `demo` shows the game and its result.

`train` takes flags or a YAML file (`--config file.yaml`), as TRL's own scripts do: [`TrainArguments`],
[`AdversarialConfig`], TRL's `ModelConfig` (adapters, quantisation) and `DatasetMixtureConfig`. `accelerate launch -m
hf_mgan.cli train ...` runs it on several devices.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from datasets import Dataset, DatasetDict, load_dataset
from peft import PeftConfig, PeftModel
from transformers import AutoTokenizer, PreTrainedModel, set_seed
from trl import (
    DatasetMixtureConfig,
    ModelConfig,
    ScriptArguments,
    SFTConfig,
    SFTTrainer,
    get_dataset,
    get_peft_config,
    get_quantization_config,
)

from ..config import AdversarialConfig
from ..data import prepare_dataset
from ..evaluation.evaluator import GeneratorEvaluator
from ..safety import SafetyGate, check_gate
from ..trainer import AdversarialTrainer
from ..training.build import load_discriminator
from ..training.further_rewards import matching
from ..training.preconditions import check_quantised_generator, check_token_credit
from ..watchdog.callback import Watchdog, check_best_model
from .arguments import FILE_KINDS, check_alone, imported, named_safety_gate


@dataclass
class TrainArguments(ScriptArguments):
    """Arguments of `hf-mgan train` beside those of [`AdversarialConfig`] and of TRL.

    Args:
        dataset_name (`str`, *optional*): Hub id or folder of the dataset, or a `.json`, `.jsonl`, `.csv`, `.parquet`
            or `.txt` file, as in TRL's scripts.
        discriminator_name_or_path (`str`): Hub id or folder of the discriminator.
        reward_funcs (`list[str]`, *optional*): Further rewards: Hub ids of classifiers, or functions as
            `module.function`.
        warm_start_steps (`int`, *optional*, defaults to 0): Steps of supervised fine-tuning (TRL's `SFTTrainer`) on
            the same data before the game, with the same batch size, adapters and seed.
        warm_start_learning_rate (`float`, *optional*, defaults to 2e-4): Its learning rate.
        safety_gate_name_or_path (`str`, *optional*): What tells unsafe completions, which then rank below every safe
            one of their group: Hub id or folder of a classifier, or a function as `module.function`, from a list of
            completions to their probabilities of being unsafe. No gate by default; see [`~safety.SafetyGate`].
        safety_gate_label (`str`, *optional*): Name or index of the classifier's label that means unsafe. Needed where
            it has several.
        safety_gate_threshold (`float`, *optional*, defaults to 0.5): P(unsafe) in (0, 1] from which on a completion is
            unsafe.
        evaluation_samples (`int`, *optional*): Samples of the generator that every evaluation measures against as many
            texts of the test split. None by default; see [`GeneratorEvaluator`].
        evaluation_encoder (`str`, *optional*): Encoder of their second judge, MAUVE and Frechet distance, left out by
            default.
        early_stopping_metric (`str`, *optional*): Held-out measure to stop by, a key of the evaluation's metrics such
            as `generator/real_nll` or `samples/c2st_auc`. Never by default; see [`~callbacks.Watchdog`].
        early_stopping_patience (`int`, *optional*, defaults to 3): Evaluations in a row without an improvement after
            which training stops.
        early_stopping_greater_is_better (`bool`, *optional*): Whether the measure is to rise or to fall; needed with
            `early_stopping_metric`.
    """

    discriminator_name_or_path: str = field(default="", metadata={"help": "Hub id or folder of the discriminator."})
    reward_funcs: list[str] | None = field(
        default=None, metadata={"help": "Further rewards: ids of classifiers, or functions as `module.function`."}
    )
    warm_start_steps: int = field(
        default=0, metadata={"help": "Steps of supervised fine-tuning on the same data before the game."}
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
        default=None, metadata={"help": "Samples that every evaluation measures against the test split."}
    )
    evaluation_encoder: str | None = field(
        default=None, metadata={"help": "Encoder of these samples' second judge, MAUVE and Frechet distance."}
    )
    early_stopping_metric: str | None = field(
        default=None, metadata={"help": "Held-out measure to stop by, such as generator/real_nll."}
    )
    early_stopping_patience: int = field(
        default=3, metadata={"help": "Evaluations in a row without an improvement after which training stops."}
    )
    early_stopping_greater_is_better: bool | None = field(
        default=None, metadata={"help": "Whether that measure is to rise (true) or to fall (false)."}
    )


def _load_data(script: TrainArguments, mixture: DatasetMixtureConfig, splits: list[str]) -> DatasetDict:
    """Load the dataset and see that it has these splits."""
    data = _loaded(script, mixture)
    for split in splits:
        if split not in data:
            raise ValueError(
                f"The data has the splits {list(data)} and no {split!r}: say with --dataset_train_split which one to "
                "train on, with --dataset_test_split which one to evaluate on, and --eval_strategy no for none."
            )
    return data


def _loaded(script: TrainArguments, mixture: DatasetMixtureConfig) -> DatasetDict:
    if mixture.datasets and script.dataset_name:
        raise ValueError("Give either dataset_name or a mixture of datasets, not both.")
    if mixture.datasets:
        return get_dataset(mixture)
    if not script.dataset_name:
        raise ValueError(
            "There is no data: give --dataset_name (a Hub id, a folder or a file), or datasets in a YAML file."
        )
    kind = FILE_KINDS.get(Path(script.dataset_name).suffix)
    if kind is not None:
        return load_dataset(kind, data_files={script.dataset_train_split: script.dataset_name})
    return load_dataset(script.dataset_name, name=script.dataset_config, streaming=script.dataset_streaming)


def _safety_gate(script: TrainArguments, args: AdversarialConfig) -> SafetyGate | None:
    """Make the gate that the arguments name, if they name one, and see that it can hold in this training."""
    if script.safety_gate_name_or_path is not None:
        check_gate(args)
        check_token_credit(args, safety_gate=script.safety_gate_name_or_path)
    return named_safety_gate(script)


def _watchdog(script: TrainArguments, args: AdversarialConfig) -> Watchdog:
    """Make the watchdog, with a measure to stop by if the arguments name one."""
    check_alone(script, "early_stopping_metric", ["early_stopping_patience", "early_stopping_greater_is_better"])
    if script.early_stopping_metric is not None and args.eval_strategy == "no":
        raise ValueError(
            f"early_stopping_metric={script.early_stopping_metric!r} is a metric of evaluations, and there are none: "
            "set --eval_strategy, and with --dataset_test_split what to evaluate on."
        )
    return Watchdog(
        early_stopping_metric=script.early_stopping_metric,
        early_stopping_patience=script.early_stopping_patience,
        greater_is_better=script.early_stopping_greater_is_better,
    )


def _generator_evaluation(
    script: TrainArguments, args: AdversarialConfig, data: DatasetDict
) -> list[GeneratorEvaluator]:
    """Make the evaluation of samples that the arguments ask for, if they do."""
    check_alone(script, "evaluation_samples", ["evaluation_encoder"])
    if script.evaluation_samples is None:
        return []
    if args.eval_strategy == "no":
        raise ValueError(
            "evaluation_samples are drawn at every evaluation, and there are none: set --eval_strategy, and with "
            "--dataset_test_split what to evaluate on."
        )
    return [
        GeneratorEvaluator(
            data[script.dataset_test_split],
            script.evaluation_samples,
            encoder=script.evaluation_encoder,
            seed=args.seed,
        )
    ]


def _check_early(
    name: str,
    args: AdversarialConfig,
    model: ModelConfig,
    peft_config: PeftConfig | None,
    reward_funcs: list[str | Callable],
) -> None:
    """Check what the trainer would check too late, with a generator that has been warm-started."""
    matching(args.reward_weights, reward_funcs, "reward weights")
    check_best_model(args)
    check_quantised_generator(name, get_quantization_config(model), peft_config, args)


def _warm_start(
    name: str,
    script: TrainArguments,
    args: AdversarialConfig,
    model: ModelConfig,
    data: Dataset,
    peft_config: PeftConfig | None,
) -> PreTrainedModel | PeftModel:
    """Run TRL's supervised trainer on the generator of this name, with the same data, and return its model."""
    tokenizer = AutoTokenizer.from_pretrained(
        name, revision=model.model_revision, trust_remote_code=args.trust_remote_code
    )
    prepared = prepare_dataset(data, tokenizer, **args.prompt_arguments())
    trainer = SFTTrainer(
        model=name,
        args=SFTConfig(
            str(Path(args.output_dir) / "warm_start"),
            max_steps=script.warm_start_steps,
            learning_rate=script.warm_start_learning_rate,
            per_device_train_batch_size=args.per_device_train_batch_size,
            gradient_accumulation_steps=args.gradient_accumulation_steps,
            model_init_kwargs=args.model_init_kwargs,
            seed=args.seed,
            bf16=args.bf16,
            fp16=args.fp16,
            use_cpu=args.use_cpu,
            report_to=args.report_to,
            logging_steps=args.logging_steps,
            gradient_checkpointing=args.gradient_checkpointing,
            save_strategy="no",
        ),
        train_dataset=prepared.select_columns(["prompt", "completion"]),
        processing_class=tokenizer,
        quantization_config=get_quantization_config(model),
        peft_config=peft_config,
    )
    trainer.train()
    return cast("PreTrainedModel | PeftModel", trainer.model)  # declared for trainers that make their model later


def train(
    script: TrainArguments, args: AdversarialConfig, model: ModelConfig, mixture: DatasetMixtureConfig
) -> AdversarialTrainer:
    """Play the game as the arguments say, save both players to `output_dir`, and push them if asked to.

    Args:
        script ([`TrainArguments`]): Data, discriminator, further rewards, warm start, safety gate, samples to evaluate
            and early stopping.
        args ([`AdversarialConfig`]): Settings of the game.
        model (`ModelConfig`): The generator, its adapters and its quantisation.
        mixture (`DatasetMixtureConfig`): A mixture of datasets in place of `dataset_name`.

    Returns:
        [`AdversarialTrainer`]: After training.

    Raises:
        ValueError: If the generator, the discriminator or the data are missing, a split, a function or a label is not
            there, or settings contradict each other. All of it is said before a warm start.
    """
    if not script.discriminator_name_or_path:
        raise ValueError(
            "There is no discriminator: give --discriminator_name_or_path, for example "
            "distilbert/distilbert-base-uncased."
        )
    if not model.model_name_or_path:
        raise ValueError("There is no generator: give --model_name_or_path, for example Qwen/Qwen2.5-0.5B.")
    if script.warm_start_steps and args.discriminator_density_offset:
        raise ValueError(
            "discriminator_density_offset needs new adapters, and those of a warm start are trained. Warm-start in a "
            "run of its own, merge its adapters (model.merge_and_unload()), save, and start the game from there."
        )
    evaluates = args.eval_strategy != "no"
    splits = [script.dataset_train_split, *([script.dataset_test_split] if evaluates else [])]
    data = _load_data(script, mixture, splits)
    # All that can be wrong is looked at before a warm start, which may take hours.
    callbacks = [_watchdog(script, args), *_generator_evaluation(script, args, data)]
    safety_gate = _safety_gate(script, args)
    reward_funcs = [imported(name, "reward_funcs") for name in script.reward_funcs or []]
    set_seed(args.seed)  # a fresh classification head is random
    discriminator = load_discriminator(script.discriminator_name_or_path, None, None, None, args)
    args.discriminator_fresh_head = False  # it has its head by now
    args.model_init_kwargs = {
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "dtype": model.dtype,
        **(args.model_init_kwargs or {}),
    }
    peft_config = get_peft_config(model)
    _check_early(model.model_name_or_path, args, model, peft_config, reward_funcs)
    generator: str | PreTrainedModel | PeftModel = model.model_name_or_path
    processing_class = None
    warm_start = script.warm_start_steps > 0 and not args.resume_from_checkpoint  # a checkpoint is past it
    if warm_start:
        generator = _warm_start(
            model.model_name_or_path, script, args, model, data[script.dataset_train_split], peft_config
        )
        processing_class = AutoTokenizer.from_pretrained(
            model.model_name_or_path,
            revision=model.model_revision,
            trust_remote_code=args.trust_remote_code,
            padding_side="left",
        )
        peft_config, args.model_init_kwargs = None, None  # the model has its adapters and is loaded
    trainer = AdversarialTrainer(
        model=generator,
        reward_funcs=reward_funcs,
        args=args,
        train_dataset=data[script.dataset_train_split],
        eval_dataset=data[script.dataset_test_split] if evaluates else None,
        processing_class=processing_class,
        callbacks=callbacks,
        quantization_config=None if warm_start else get_quantization_config(model),
        peft_config=peft_config,
        discriminator=discriminator.model,
        discriminator_processing_class=discriminator.processing_class,
        safety_gate=safety_gate,
    )
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model(args.output_dir)
    is_local = script.dataset_name is None or Path(script.dataset_name).exists()
    dataset_name = None if is_local else script.dataset_name
    trainer.create_model_card(dataset_name=dataset_name)
    trainer.accelerator.print(
        f"The generator is in {args.output_dir}, the discriminator in {args.output_dir}/discriminator."
    )
    if args.push_to_hub:
        trainer.push_to_hub(dataset_name=dataset_name)
    return trainer
