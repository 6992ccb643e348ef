"""The subcommand `hf-mgan train`: from flags or a YAML file to a trainer, and from there to two saved models.

It takes [`TrainArguments`], [`AdversarialConfig`], TRL's `ModelConfig` (adapters, quantisation) and
`DatasetMixtureConfig`, as TRL's own scripts do. All that is wrong with them is an error before a warm start.
"""

import copy
import gc
import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from datasets import Dataset
from transformers import EarlyStoppingCallback
from trl import (
    DatasetMixtureConfig,
    ModelConfig,
    get_dataset,
    get_quantization_config,
)
from trl.trainer.utils import create_model_from_path

from ..config import AdversarialConfig
from ..evaluation.evaluator import GeneratorEvaluator
from ..models import load_processing_class
from ..trainer import AdversarialTrainer
from ..training.build import check_arguments
from ..watchdog import Watchdog
from .arguments import check_alone, check_is_there, imported, named_safety_gate
from .data_files import Splits, are_local, split_of, splits_of
from .run_settings import save_settings
from .train_arguments import TrainArguments, adapters_of, check_details
from .warm_start import warm_started


WHICH_SPLIT = (
    "say with --dataset_train_split which one to train on, with --dataset_test_split which one to evaluate on and to "
    "calibrate the discriminator on; --eval_strategy no and --discriminator_final_steps 0 need none. Held-out texts "
    "that are elsewhere go in as --eval_dataset_name."
)
OF_REAL = "say with --dataset_train_split which one has the real texts."


def train(
    script: TrainArguments,
    args: AdversarialConfig,
    model: ModelConfig,
    mixture: DatasetMixtureConfig,
    given: Mapping[str, Any] | None = None,
) -> AdversarialTrainer:
    """Train as the arguments say, save both models to `output_dir`, and push them if asked to.

    Args:
        script ([`TrainArguments`]): Data, discriminator, further rewards, warm start, safety gate, samples to evaluate
            and early stopping.
        args ([`AdversarialConfig`]): Settings of adversarial training.
        model (`ModelConfig`): The generator, its adapters and its quantisation.
        mixture (`DatasetMixtureConfig`): A mixture of datasets in place of `dataset_name`.
        given (`Mapping`, *optional*): What of all that was given, by name, to be written to a file of `output_dir`.

    Returns:
        [`AdversarialTrainer`]: After training.

    Raises:
        ValueError: If the generator, the discriminator or the data are missing, a split, a function or a label is not
            there, or settings contradict each other. All of it is said before a warm start.
    """
    check_models(script, args, model)
    data = load_splits(script, args, mixture)
    arguments = trainer_arguments(script, args, model, data)
    settings = (args.output_dir, given or {}, script, args)
    if script.warm_start_steps > 0 and not args.resume_from_checkpoint:  # a checkpoint is past it
        check_trainer(arguments)
        if args.process_index == 0:
            save_settings(*settings)
        peft_config = arguments["peft_config"]
        arguments["model"], arguments["processing_class"] = warm_started(
            model,
            args,
            arguments["train_dataset"],
            peft_config,
            arguments["processing_class"],
            steps=script.warm_start_steps,
            learning_rate=script.warm_start_learning_rate,
        )
        # The model is loaded and has its adapters.
        arguments["quantization_config"] = arguments["peft_config"] = args.model_init_kwargs = None
    trainer = AdversarialTrainer(**(with_shared_base(arguments) if script.share_base else arguments))
    if args.process_index == 0:
        save_settings(*settings)
    trainer.dataset_name = datasets_on_hub(script, mixture)
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    if args.push_to_hub:
        trainer.push_to_hub()  # saves first
    else:
        trainer.save_model(args.output_dir)
        trainer.create_model_card()
    trainer.accelerator.print(
        f"The generator is in {args.output_dir}, the discriminator in {args.output_dir}/discriminator."
    )
    return trainer


def datasets_on_hub(script: TrainArguments, mixture: DatasetMixtureConfig) -> list[str] | None:
    """Return the ids of the datasets that come from the Hub, None where none does."""
    names = [one.path for one in mixture.datasets] if mixture.datasets else list(script.dataset_name or [])
    return [name for name in names if not are_local(name)] or None


def check_models(script: TrainArguments, args: AdversarialConfig, model: ModelConfig) -> None:
    """Check that both models are named, and that nothing that is said of them is ignored."""
    if not model.model_name_or_path:
        raise ValueError("There is no generator: give --model_name_or_path, for example Qwen/Qwen2.5-0.5B.")
    check_details(model)
    check_details(script.discriminator_model_config(bool(args.bf16)), "discriminator_")
    if script.share_base:
        _check_shared_base(script, model)
    elif not script.discriminator_name_or_path:
        raise ValueError(
            "There is no discriminator: give --discriminator_name_or_path, for example "
            "distilbert/distilbert-base-uncased, or --share_base for one on the generator's base."
        )
    check_is_there(model.model_name_or_path, "model_name_or_path", model.model_revision)
    revision = script.discriminator_model_revision or args.model_init("revision")
    check_is_there(script.discriminator_name_or_path or None, "discriminator_name_or_path", revision)
    for name in ("tokenizer_name_or_path", "discriminator_tokenizer_name_or_path"):
        check_is_there(getattr(script, name), name)


def _check_shared_base(script: TrainArguments, model: ModelConfig) -> None:
    """Check that one base can be both models'."""
    for name in ("name_or_path", "model_revision", "load_in_4bit", "load_in_8bit"):
        if value := getattr(script, f"discriminator_{name}"):
            raise ValueError(
                f"discriminator_{name}={value!r} has no effect with share_base, which takes the generator's base as "
                "it is loaded: leave one of them out."
            )
    if not (model.use_peft and script.discriminator_use_peft):
        raise ValueError(
            "With share_base the weights belong to both models, so each needs adapters of its own: give --use_peft "
            "and --discriminator_use_peft."
        )
    if script.warm_start_steps > 0:
        raise ValueError(
            "With share_base there is no warm start, whose adapters would be the generator's alone: make it before, "
            "merge them (model.merge_and_unload()), and give the saved model as --model_name_or_path."
        )


def load_splits(script: TrainArguments, args: AdversarialConfig, mixture: DatasetMixtureConfig) -> Splits:
    """Load the dataset, and check that it has the splits to train on and to evaluate on."""
    data, test = _loaded(script, mixture), script.dataset_test_split
    if script.eval_dataset_name is not None:
        if test == script.dataset_train_split:
            raise ValueError(f"The split to train on and that to evaluate on are both called {test!r}: {WHICH_SPLIT}")
        elsewhere = splits_of(script.eval_dataset_name, None, test, script.dataset_streaming)
        data = {**data, test: split_of(elsewhere, script.eval_dataset_name, test, WHICH_SPLIT)}
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
    if script.discriminator_model_revision is not None:
        own, revision = cast("dict", args.discriminator_model_init_kwargs or {}), script.discriminator_model_revision
        if own.get("revision", revision) != revision:
            raise ValueError(
                f"discriminator_model_revision is {revision!r}, and discriminator_model_init_kwargs has the revision "
                f"{own['revision']!r}: give one of them."
            )
        args.discriminator_model_init_kwargs = {**own, "revision": revision}
    of_discriminator = script.discriminator_model_config(bool(args.bf16))
    return {
        "model": model.model_name_or_path,
        "discriminator": script.discriminator_name_or_path,
        "args": args,
        "train_dataset": data[script.dataset_train_split],
        "eval_dataset": _eval_dataset(script, args, data),
        "real_dataset": _real_dataset(script),
        "processing_class": _tokenizer(script.tokenizer_name_or_path, "generator", args),
        "discriminator_processing_class": _tokenizer(
            script.discriminator_tokenizer_name_or_path, "discriminator", args
        ),
        "reward_funcs": [_reward(name) for name in script.reward_funcs or []],
        "safety_gate": named_safety_gate(script),
        "evaluator": _evaluator(script, args, data),
        "callbacks": [*_watchdog(script), *_early_stopping(script, args)],
        "quantization_config": get_quantization_config(model),
        "peft_config": adapters_of(model),
        "discriminator_quantization_config": get_quantization_config(of_discriminator),
        "discriminator_peft_config": adapters_of(of_discriminator),
    }


def with_shared_base(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the trainer's arguments with one loaded model as generator and discriminator."""
    args = arguments["args"]
    kwargs = {"trust_remote_code": args.trust_remote_code, **args.model_init_kwargs}
    if arguments["quantization_config"] is not None:
        kwargs["quantization_config"] = arguments["quantization_config"]
    if args.distributed_state.distributed_type in ("MULTI_GPU", "DEEPSPEED"):
        kwargs["device_map"] = None
    base = create_model_from_path(arguments["model"], **kwargs)
    args.model_init_kwargs = None  # it is loaded with them
    return {**arguments, "model": base, "discriminator": base, "quantization_config": None}


def _eval_dataset(script: TrainArguments, args: AdversarialConfig, data: Splits) -> Any:
    """Return the held-out rows that are generated for, if training needs some."""
    count = script.max_eval_samples
    if not needs_held_out(args):
        if count is not None:
            raise ValueError(f"max_eval_samples={count} has no effect without evaluations: set --eval_strategy.")
        return None
    rows = data[script.dataset_test_split]
    if count is None:
        return rows
    return rows.select(range(min(count, len(rows)))) if isinstance(rows, Dataset) else rows.take(count)


def _real_dataset(script: TrainArguments) -> Any:
    """Return the real texts that belong to no prompt, if there are some."""
    check_alone(script, "real_dataset_name", ["real_dataset_config"])
    if (name := script.real_dataset_name) is None:
        return None
    split = script.dataset_train_split
    return split_of(splits_of(name, script.real_dataset_config, split, script.dataset_streaming), name, split, OF_REAL)


def _tokenizer(name: str | None, of: str, args: AdversarialConfig) -> Any:
    """Load a tokenizer that is not beside its model, if one is named."""
    if name is None:
        return None
    sides: dict[str, Any] = {"padding_side": "left", "truncation_side": "left"} if of == "generator" else {}
    return load_processing_class(name, of, "name another one", trust_remote_code=args.trust_remote_code, **sides)


def _reward(name: str) -> str | Callable:
    """Return the function that is named, or the id or folder of a classifier that is there."""
    reward = imported(name, "reward_funcs")
    if isinstance(reward, str):
        check_is_there(reward, "reward_funcs")
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
    check_alone(script, "num_samples", ["encoder", "copies", "bleu", "reverse_perplexity"])
    if script.num_samples is None:
        return None
    _check_evaluations_come(args, f"num_samples={script.num_samples}")
    check_is_there(script.encoder, "encoder")
    held_out = data[script.dataset_test_split]
    return GeneratorEvaluator(
        held_out,
        script.num_samples,
        encoder=script.encoder,
        training=data[script.dataset_train_split] if script.copies else None,
        bleu=script.bleu,
        reverse_perplexity=script.reverse_perplexity,
        seed=args.seed,
    )


def _watchdog(script: TrainArguments) -> list[Watchdog]:
    """Make the watchdog, if it is not to be the default one."""
    given = {name: getattr(script, f"watchdog_{name}") for name in ("patience", "thresholds", "unsafe_limit")}
    if given["unsafe_limit"] is not None and script.safety_gate_name_or_path is None:
        raise ValueError(
            f"watchdog_unsafe_limit={given['unsafe_limit']} has no effect without safety_gate_name_or_path, which "
            "tells unsafe completions: give both or neither."
        )
    return [Watchdog(**given)] if given != {"patience": 10, "thresholds": None, "unsafe_limit": None} else []


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
