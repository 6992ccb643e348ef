"""Loading a classifier as a discriminator: fresh heads, labels, adapters and quantisation."""

import copy
import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, cast

import torch
from peft import PeftConfig, PeftModel, PromptLearningConfig, TaskType, get_peft_model
from peft.utils import load_peft_weights, set_peft_model_state_dict
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.peft_utils import find_adapter_config_file

from ..models import saved_quantisation


if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

BLOCK_SIZE = 64  # of the weights that bitsandbytes gives one scale in 4 bits
# Some encoders pool within their base model, and a checkpoint of one that was trained on masked words has no pooler.
POOLER_PATTERN = r"(?:.*\.)?pooler"


def load_classifier(
    name: str,
    peft_config: PeftConfig | None,
    quantization_config: "BitsAndBytesConfig | None",
    revision: str | None,
    trust_remote_code: bool,
    fresh_head: bool = False,
    attn_implementation: str | None = None,
) -> PreTrainedModel | PeftModel:
    """Load a sequence classifier to be trained; arguments as in `Discriminator.from_pretrained`."""
    adapter = find_adapter_config_file(name, revision=revision) is not None
    if adapter and peft_config is not None:
        raise ValueError(
            f"{name} holds adapters already, which are trained on; discriminator_peft_config would add others. Leave "
            "it out, or merge the saved adapters first."
        )
    if quantization_config is not None and peft_config is None and not adapter:
        raise ValueError(
            "A quantised discriminator cannot be trained as it is: quantised weights take no gradient. Give "
            "discriminator_peft_config, for example LoraConfig(task_type='SEQ_CLS', target_modules='all-linear')."
        )
    saved = _saved_adapters(name, revision) if adapter else None
    if saved is not None and quantization_config is None:
        quantization_config = saved_quantisation(name, revision)
    base_name = name if saved is None else str(saved.base_model_name_or_path)
    source = {
        "revision": revision if saved is None else saved.revision,
        "trust_remote_code": trust_remote_code,
    }
    # Spelt out, since the default would train a classifier that was saved in bfloat16 in pure bfloat16.
    arguments: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": attn_implementation, **source}
    config = AutoConfig.from_pretrained(base_name, **source)
    is_classifier = any("ForSequenceClassification" in architecture for architecture in config.architectures or [])
    own_labels = _num_saved_labels(name, revision, config, trust_remote_code) if saved is not None else None
    renews = fresh_head and own_labels != 1  # adapters that were saved with a head of one label have renewed it
    if renews or not (is_classifier or own_labels):
        arguments["num_labels"] = 1
    elif own_labels and not (is_classifier and own_labels == config.num_labels):
        arguments["num_labels"] = own_labels
    arguments["ignore_mismatched_sizes"] = is_classifier and "num_labels" in arguments
    if quantization_config is not None:
        arguments["quantization_config"] = _with_head_in_full_precision(quantization_config, config, trust_remote_code)
    model, report = AutoModelForSequenceClassification.from_pretrained(
        base_name, output_loading_info=True, **arguments
    )
    if renews:
        _renew_head(model)
    if saved is not None and renews:
        return _adapters_beside_a_new_head(model, name, revision, saved)
    if saved is not None:
        return PeftModel.from_pretrained(model, name, is_trainable=True, revision=revision)
    if peft_config is not None:
        return with_adapters(model, peft_config, {key.rpartition(".")[0] for key in report["missing_keys"]})
    return model


def _saved_adapters(name: str, revision: str | None) -> PeftConfig:
    saved = PeftConfig.from_pretrained(name, revision=revision)
    if saved.task_type not in (None, TaskType.SEQ_CLS):
        raise ValueError(
            f"{name} holds adapters of the task type {saved.task_type!r}, and a discriminator is a sequence "
            "classifier (task_type='SEQ_CLS'). Merge them into their model, merge_and_unload(), save that, and give "
            "its folder."
        )
    return saved


def _adapters_beside_a_new_head(
    model: PreTrainedModel, name: str, revision: str | None, saved: PeftConfig
) -> PeftModel:
    """Put saved adapters on a classifier, but for the head that was saved with them."""
    weights = load_peft_weights(name, device="cpu", revision=revision)
    new = {f"base_model.model.{key}": value for key, value in model.state_dict().items()}
    heads = tuple(f"base_model.model.{head}." for head in head_modules(model))
    saved.inference_mode = False
    loaded = get_peft_model(model, saved)
    set_peft_model_state_dict(loaded, {k: new[k] if k.startswith(heads) else v for k, v in weights.items()})
    return cast(PeftModel, loaded)


def _num_saved_labels(name: str, revision: str | None, config: Any, trust_remote_code: bool) -> int | None:
    """Return the number of labels of the head that was saved with adapters, None where none was."""
    with torch.device("meta"):  # the structure, without weights
        model = AutoModelForSequenceClassification.from_config(
            copy.deepcopy(config), trust_remote_code=trust_remote_code
        )
    head = head_modules(model)[-1]
    layers = [f"{head}.{layer}" for layer, weight in model.get_submodule(head).named_parameters() if weight.ndim == 2]
    weights = load_peft_weights(name, device="cpu", revision=revision)
    last = weights.get(f"base_model.model.{layers[-1]}") if layers else None
    return None if last is None else len(last)


def head_modules(model: PreTrainedModel) -> list[str]:
    """Return the names of the modules that a classifier has on top of its base model.

    They are not quantised, and are trained and saved with adapters: PEFT by itself knows the names `classifier` and
    `score` alone, and transformers keeps the last linear layer in full precision only if it has no bias. Read off the
    model, since every family has names of its own (`pre_classifier`, `head`, `classification_head`, ...).
    """
    base = model.base_model
    return [
        name
        for name, module in model.named_children()
        if module is not base and next(module.parameters(), None) is not None
    ]


def _renew_head(model: PreTrainedModel) -> None:
    """Give the head new weights: layers of a trained one whose sizes fit would otherwise keep theirs."""
    for name in head_modules(model):
        for module in model.get_submodule(name).modules():
            for parameter in module.parameters(recurse=False):
                parameter._is_hf_initialized = False  # type: ignore[attr-defined]  # "loaded", for transformers
            model._init_weights(module)


def checked_classifier(model: Any, processing_class: Any) -> PreTrainedModel:
    """Return the sequence classifier that a model is, without its adapters.

    Raises:
        TypeError: If it is none, or `processing_class` is no tokenizer.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(base, PreTrainedModel) or "ForSequenceClassification" not in type(base).__name__:
        raise TypeError(
            f"The discriminator's model must be a sequence classifier, got {type(base).__name__}. Load it with "
            "AutoModelForSequenceClassification.from_pretrained(..., num_labels=1), or give its id."
        )
    if not isinstance(processing_class, PreTrainedTokenizerBase):
        raise TypeError(
            f"The discriminator's processing_class must be a tokenizer, got {type(processing_class).__name__}."
        )
    return base


def label_index(config: Any, label: str | int | None, argument: str, meaning: str, hint: str = "") -> int:
    """Return the index of the label that means what the caller is after.

    Args:
        config (`PreTrainedConfig`): The classifier's configuration.
        label (`str` or `int`, *optional*): Name or index; a string of digits that is no name counts as an index.
        argument (`str`): Name of the argument that holds the label, for errors.
        meaning (`str`): What the label means, such as "real text", for errors.
        hint (`str`, *optional*): What else can be done where several labels leave the choice open.

    Returns:
        `int`: In [0, number of labels).

    Raises:
        ValueError: If the classifier has several labels and none is named, or it has no such label.
    """
    names = [config.id2label[index] for index in range(config.num_labels)]
    if label is None:
        if len(names) == 1:
            return 0
        raise ValueError(
            f"The classifier has the labels {names}: say which of them means {meaning} with {argument}, a name or an "
            f"index. {hint}".rstrip()
        )
    if label in names:
        return names.index(str(label))
    number = re.fullmatch(r"(?:LABEL_)?(\d+)", str(label))  # a saved classifier may have got better names since
    if number and int(number[1]) < len(names):
        return int(number[1])
    raise ValueError(f"{argument} is {label!r}, and the classifier has the labels {names}. Give a name or an index.")


def name_labels(config: Any, label: int) -> None:
    """Name the label that means real text, and of two the other, where they are called LABEL_0 and so on.

    Args:
        config (`PreTrainedConfig`): The classifier's configuration; changed.
        label (`int`): Index of the label that means real text.
    """
    names = {index: f"LABEL_{index}" for index in range(config.num_labels)}
    if dict(config.id2label) != names:
        return
    others = dict.fromkeys(names, "generated") if len(names) == 2 else names
    config.id2label = {**others, label: "real"}
    config.label2id = {name: index for index, name in config.id2label.items()}


def with_adapters(model: PreTrainedModel, peft_config: PeftConfig, fresh: Collection[str] = ()) -> PeftModel:
    """Add adapters to a classifier, its head trained and saved with them; the configuration given is not changed.

    Args:
        model (`PreTrainedModel`): A sequence classifier.
        peft_config (`PeftConfig`): The adapters.
        fresh (`Collection[str]`, *optional*): Further modules whose weights are new. They are random, so they too have
            to be trained, and to be saved if the model is to be the same when it is loaded again.
    """
    config = copy.deepcopy(peft_config)
    if config.task_type is None:
        config.task_type = TaskType.SEQ_CLS
    if config.task_type != TaskType.SEQ_CLS:
        raise ValueError(
            f"discriminator_peft_config has the task type {config.task_type!r}, and a discriminator is a sequence "
            "classifier: use task_type='SEQ_CLS' or leave it out."
        )
    if not isinstance(config, PromptLearningConfig):  # prompts are saved alone
        head = head_modules(model)
        below = [name for name in fresh if name and name.split(".")[0] not in head]
        given = getattr(config, "modules_to_save", None) or []
        # PEFT adds its own two names itself.
        names = sorted({*given, *head, *below} - {"classifier", "score"})
        config.modules_to_save = names or None  # type: ignore[attr-defined]
    return get_peft_model(model, config)


def check_head_in_full_precision(model: PreTrainedModel) -> None:
    """Raise a `ValueError` if a loaded classifier's head is quantised: it has to be trained beside adapters."""
    names = head_modules(model)
    parameters = [parameter for name in names for parameter in model.get_submodule(name).parameters()]
    if not all(parameter.is_floating_point() for parameter in parameters):
        raise ValueError(
            f"The head of the discriminator ({', '.join(names)}) is quantised, so it cannot be trained. Give the id, "
            "with discriminator_quantization_config, or load it yourself with "
            f"BitsAndBytesConfig(..., llm_int8_skip_modules={names})."
        )


def bring_to_float32(model: PreTrainedModel | PeftModel) -> None:
    """Bring a model whose trained weights are in half precision to float32, in place.

    In bfloat16 a weight has three digits, and most steps of an optimizer are less than the last of them. A classifier
    that is loaded by its id is in float32 as well. Weights that are not trained stay as they are.

    Raises:
        ValueError: If the model is quantised, so that it cannot be converted.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in trained):
        return
    if getattr(model, "is_quantized", False):
        raise ValueError(
            "The discriminator's adapters or its head are in half precision, in which most steps of its optimizer are "
            "rounded away. Load the quantised model with dtype=torch.float32, or give its id."
        )
    model.float()


def prepare_quantised_training(model: PreTrainedModel | PeftModel) -> None:
    """Check that a quantised model can be trained, and keep bitsandbytes from packing its weights for inference.

    On a CPU that computes in bfloat16 (AVX512-BF16), `bitsandbytes.nn.Linear4bit` packs its weights when it is first
    used in evaluation mode, and a packed layer has no backward pass: it drops the gradient, without an error unless it
    has a bias. A discriminator is in evaluation mode at all times. This can go once packed layers pass gradients on,
    which they do not in bitsandbytes 0.50.

    Args:
        model (`PreTrainedModel` or `PeftModel`): A generator or discriminator, quantised or not; changed in place.

    Raises:
        ValueError: If the model is called quantised and has no quantised layer, if its layers are packed already, or
            if they are of a width that bitsandbytes 0.50 gets wrong on a CPU.
    """
    if not (getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False)):
        return
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    layers = {name: module for name, module in model.named_modules() if isinstance(module, (Linear4bit, Linear8bitLt))}
    if not layers:
        name = type(model.get_base_model() if isinstance(model, PeftModel) else model).__name__
        raise ValueError(
            f"{name} has no layer that transformers quantises, so it would be trained in full precision: leave out "
            "its quantisation. (Only torch's own linear layers are replaced, not layers derived from them.)"
        )
    layers = {name: layer for name, layer in layers.items() if isinstance(layer, Linear4bit)}
    # Read back, such weights are others than were written.
    garbled = [
        name.removesuffix(".base_layer").rpartition(".")[2]
        for name, layer in layers.items()
        if layer.weight.device.type == "cpu" and layer.in_features % BLOCK_SIZE
    ]
    if garbled:
        raise ValueError(
            f"On a CPU bitsandbytes gets layers in 4 bits wrong whose inputs are no multiple of {BLOCK_SIZE} wide. "
            f"Leave these out of the quantisation, with llm_int8_skip_modules={sorted(set(garbled))} (and 'lm_head' "
            "for a generator: a list of one's own replaces the usual one)."
        )
    for layer in layers.values():
        weight: Any = layer.weight  # Params4bit, which torch declares as Tensor
        if getattr(weight.quant_state, "packing_format_for_cpu", False):
            # Unpacking, as saving does it, does not restore the scales (bitsandbytes 0.50).
            raise ValueError(
                "The model has been used for inference on this CPU, for which bitsandbytes packed its 4-bit weights; "
                "packed, they pass no gradient on. Load it again, or give its id."
            )
        layer.support_avx512bf16_for_cpu = False


def _with_head_in_full_precision(
    quantization_config: "BitsAndBytesConfig", config: Any, trust_remote_code: bool
) -> "BitsAndBytesConfig":
    """Return a copy that leaves out the head, beside what the user leaves out; `config` is the model's."""
    with torch.device("meta"):  # the structure, without weights
        model = AutoModelForSequenceClassification.from_config(
            copy.deepcopy(config), trust_remote_code=trust_remote_code
        )
    quantization_config = copy.deepcopy(quantization_config)
    # Regular expressions; without the caret, transformers would take a name for the end of a name too.
    head = [f"^{name}" for name in head_modules(model)]
    given = quantization_config.llm_int8_skip_modules or []
    quantization_config.llm_int8_skip_modules = list(dict.fromkeys([*given, *head, POOLER_PATTERN]))
    return quantization_config
