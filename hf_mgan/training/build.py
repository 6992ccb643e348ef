"""Building: from what the trainer is given to both models, every refusal before any weights are loaded.

In: the arguments of [`AdversarialTrainer`]. Out: [`Parts`], of which TRL's constructor is given its share. TRL loads
the generator itself.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from peft import PeftModel
from transformers import (
    AutoConfig,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from ..config import AdversarialConfig
from ..discriminator import Discriminator
from ..models import check_vocabulary
from ..models.quantization import FILE as QUANTISATION_FILE
from ..safety import GATE, SafetyGate, as_gate, check_gate
from ..watchdog.callback import watched
from .arguments import check_types
from .best_model import check_best_model
from .final_updates import check_final_updates
from .generation import check_vllm
from .generator import Generator, checked_model, quantisation_below, saved_adapters
from .hub import make_repository
from .loading import load_discriminator, load_generator_processing_class, shared_base
from .prepared_data import datasets_in, prepared_data
from .reward import NAME, DiscriminatorReward
from .safety_reward import SafetyReward


# Arguments of the trainer that TRL's does not have.
OWN_ARGUMENTS = (
    "discriminator",
    "discriminator_processing_class",
    "discriminator_peft_config",
    "discriminator_quantization_config",
    "real_dataset",
    "safety_gate",
    "evaluator",
)


@dataclass(frozen=True)
class Parts:
    """What a trainer is made of.

    Attributes:
        for_trl (`dict`): The arguments of TRL's constructor: those that the user gave, with prepared datasets, and all
            rewards with their weights.
        reward ([`DiscriminatorReward`]): The discriminator's reward, one of them.
        safety ([`SafetyReward`], *optional*): The safety gate's, the last of them.
        reward_weights (`list[float]`, *optional*): The weights as the user gave them.
        reads_real_texts (`bool`): Whether the generator reads real texts as they stand, without images or the tools of
            an environment.
        repo_id (`str`, *optional*): The repository on the Hub that the run is pushed to.
    """

    for_trl: dict[str, Any]
    reward: DiscriminatorReward
    safety: SafetyReward | None
    reward_weights: list[float] | None
    reads_real_texts: bool
    repo_id: str | None


def checked_args(args: Any, model: Any) -> AdversarialConfig:
    """Return the trainer's settings, the defaults where none are given.

    Raises:
        TypeError: If they are those of another trainer.
    """
    if args is None:
        name = model if isinstance(model, str) else model.config._name_or_path or type(model).__name__
        return AdversarialConfig(f"{name.rstrip('/').split('/')[-1]}-GAN")
    if not isinstance(args, AdversarialConfig):
        raise TypeError(
            f"args must be an AdversarialConfig, got {type(args).__name__}. It takes the same arguments: "
            "`from hf_mgan import AdversarialConfig`."
        )
    args.check()  # a setting may have been changed since
    return args


def build(given: dict[str, Any], is_training: Callable[[], bool]) -> Parts:
    """Check all arguments, prepare the data, and load the discriminator.

    Args:
        given (`dict`): The arguments of [`AdversarialTrainer`] by name.
        is_training (`Callable`): Says whether the trainer is training or evaluating.

    Returns:
        [`Parts`]: All that the trainer needs.

    Raises:
        TypeError: If `args` or a model is of the wrong type.
        ValueError: If the discriminator or the real texts are missing, or settings contradict each other.
    """
    check_types(given)
    model = checked_model(given["model"])
    args = checked_args(given["args"], model)
    given = {**given, "model": model}
    gate = None if given["safety_gate"] is None else as_gate("safety_gate", given["safety_gate"])
    check_arguments(given, args, gate)
    generator = Generator(model, given["peft_config"], args)
    reward_funcs = as_list(given["reward_funcs"])
    processing_classes = matching(given["reward_processing_classes"], reward_funcs, "reward processing classes")
    weights = matching(args.reward_weights, reward_funcs, "reward weights")

    processing_class = given["processing_class"]
    if processing_class is None:
        processing_class = load_generator_processing_class(model, args)
    is_tokenizer = isinstance(processing_class, PreTrainedTokenizerBase)
    tokenizer = processing_class if is_tokenizer else processing_class.tokenizer
    reads_real_texts = is_tokenizer and given["environment_factory"] is None
    check_vocabulary(generator.model, tokenizer, "generator", "processing_class")
    check_real_text_coef(args, reads_real_texts)
    data, real_texts = prepared_data(given, args, tokenizer, processing_class)
    if reads_real_texts and not given["tools"] and given["rollout_func"] is None:
        generator.check_room(datasets_in(data), tokenizer)
    if given["evaluator"] is not None:
        given["evaluator"].prepare(processing_class, args, gate)

    pushes = args.push_to_hub and args.process_index == 0
    repo_id = make_repository(args) if pushes else None  # the last that can be refused before weights are loaded

    trl_args = copy.copy(args)  # the user's keep the weights of the user's rewards
    discriminator = load_given_discriminator(given, args, tokenizer)
    reward = DiscriminatorReward(discriminator, real_texts, trl_args, is_training)
    safety = None if gate is None else SafetyReward(gate, tokenizer)
    own = [(reward, args.discriminator_weight), *([] if safety is None else [(safety, 1.0)])]
    trl_args.reward_weights = [
        *(1.0 if weight is None else weight for weight in weights),
        *(weight for _, weight in own),
    ]
    changed = {
        "args": trl_args,
        "reward_funcs": [*reward_funcs, *(function for function, _ in own)],
        "reward_processing_classes": [*processing_classes, *(None for _ in own)],
        "processing_class": processing_class,
        "callbacks": watched(given["callbacks"]),
        **data,
    }
    if generator.adapters is not None:
        changed["model"] = generator.load_adapters(given["quantization_config"])
        changed["quantization_config"] = trl_args.model_init_kwargs = None  # it is loaded with them
    for_trl = {name: value for name, value in {**given, **changed}.items() if name not in OWN_ARGUMENTS}
    return Parts(for_trl, reward, safety, args.reward_weights, reads_real_texts, repo_id)


def check_arguments(given: dict[str, Any], args: AdversarialConfig, gate: SafetyGate | None) -> None:
    """Refuse what needs neither data nor models to be seen."""
    if given["discriminator"] is None:
        raise ValueError(
            "AdversarialTrainer needs a discriminator: the id of any sequence classifier or encoder, for example "
            "discriminator='distilbert/distilbert-base-uncased'. For fixed rewards alone there is trl.GRPOTrainer."
        )
    check_quantised_generator(given["model"], given["quantization_config"], given["peft_config"], args)
    check_vllm(given["model"], given["peft_config"], args)
    check_best_model(args, given["callbacks"] or [])
    if args.discriminator_final_steps:
        check_final_updates(given["train_dataset"], given["eval_dataset"])
    if given["evaluator"] is not None:
        writers = {name: given[name] for name in ("tools", "rollout_func", "environment_factory")}
        given["evaluator"].check(args, **writers)
    if gate is not None:
        check_gate(args)
        check_gate_is_apart(gate, given["discriminator"])


def load_given_discriminator(
    given: dict[str, Any], args: AdversarialConfig, tokenizer: PreTrainedTokenizerBase
) -> Discriminator:
    """Load the discriminator, or make it on the generator's own weights where both are one object."""
    model, discriminator = given["model"], given["discriminator"]
    processing_class, peft_config = given["discriminator_processing_class"], given["discriminator_peft_config"]
    set_seed(args.seed)  # a fresh classification head is random
    if discriminator is model and isinstance(model, (PreTrainedModel, PeftModel)):
        discriminator = shared_base(model, given["peft_config"], peft_config)
        processing_class = processing_class or tokenizer
    return load_discriminator(
        discriminator, processing_class, peft_config, given["discriminator_quantization_config"], args
    )


def as_list(value: Any) -> list:
    """Return a new list of the values: none for `None`, one for what is no list."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def matching(values: Any, reward_funcs: list, what: str) -> list:
    """Return one value for each reward function, `None` where none are given; the words of the error are TRL's.

    Args:
        values (*optional*): A value or a list of them.
        reward_funcs (`list`): The further rewards.
        what (`str`): What the values are, for the error.

    Returns:
        `list`: As long as `reward_funcs`.

    Raises:
        ValueError: If values are given, and not one for each reward function.
    """
    values = as_list(values) if values is not None else [None] * len(reward_funcs)
    if len(values) != len(reward_funcs):
        raise ValueError(
            f"Number of {what} ({len(values)}) must match number of reward functions ({len(reward_funcs)}). The "
            "discriminator is not among them: its weight is discriminator_weight."
        )
    return values


def check_reward_names(names: list[str], safety: SafetyReward | None) -> None:
    """Check that no reward of the user's has the name of one of the trainer's, which names its metrics."""
    for name, own in ((NAME, 1), (GATE, int(safety is not None))):
        if names.count(name) > own:
            raise ValueError(f"A reward function is called {name!r}, which names this trainer's own: rename it.")


def check_real_text_coef(args: AdversarialConfig, reads_real_texts: bool) -> None:
    """Check that the generator can read real texts as they stand, if it is to be anchored on them."""
    if args.real_text_coef and not reads_real_texts:
        raise ValueError(
            "real_text_coef is the generator's cross-entropy on plain text, and this generator reads images or the "
            "tools of an environment as well: leave it out, or use beta to hold it near its start."
        )


def check_gate_is_apart(gate: SafetyGate, discriminator: Any) -> None:
    """Check that the safety gate's classifier, which is frozen, is not the discriminator, which is trained."""
    if gate.model is not None and gate.model is discriminator:
        raise ValueError(
            "One model is given as safety gate and as discriminator. The gate's classifier is frozen and the "
            "discriminator is trained: load it twice."
        )


def check_quantised_generator(
    model: str | PreTrainedModel | PeftModel, quantization_config: Any, peft_config: Any, args: AdversarialConfig
) -> None:
    """Check that a generator in 4 or 8 bits has adapters and does not generate with vLLM."""
    adapters = saved_adapters(model, args)
    has_adapters = peft_config is not None or isinstance(model, PeftModel) or adapters is not None
    if adapters is not None:
        quantization_config = quantisation_below(str(model), quantization_config, args)
        model = str(adapters.base_model_name_or_path)
    if (has_adapters and not args.use_vllm) or not _is_quantised(model, quantization_config, args):
        return
    if not has_adapters:
        raise ValueError(
            "A generator in 4 or 8 bits cannot be trained as it is: quantised weights take no gradient. Give "
            "peft_config, for example LoraConfig(r=16, target_modules='all-linear'), or leave out its quantisation."
        )
    raise ValueError(
        "A generator in 4 or 8 bits cannot generate with vLLM: before each generation TRL merges the adapters into "
        "the weights that it sends, and merging into quantised weights rounds the adapters away and hands over packed "
        "weights. Set use_vllm=False, or leave out the quantisation; that of saved adapters is in their "
        f"{QUANTISATION_FILE}."
    )


def _is_quantised(model: Any, quantization_config: Any, args: AdversarialConfig) -> bool:
    if not isinstance(model, str):  # it is as it was loaded, whatever the arguments say
        return getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False)
    arguments = args.model_init_kwargs or {}
    given = quantization_config or arguments.get("quantization_config")
    if given is None:  # it may have been saved quantised
        config = AutoConfig.from_pretrained(
            model, revision=arguments.get("revision"), trust_remote_code=args.trust_remote_code
        )
        given = getattr(config, "quantization_config", None)
    if isinstance(given, dict):
        return bool(given.get("load_in_4bit") or given.get("load_in_8bit"))
    return isinstance(given, BitsAndBytesConfig) and (given.load_in_4bit or given.load_in_8bit)
