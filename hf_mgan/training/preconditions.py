"""What must hold of the trainer's arguments beyond the range of a single setting.

Checked while the trainer is made and before weights are loaded, so that a run does not fail late or do something else
than it was asked to. Each check raises a `ValueError` that gives the reason and what to do.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from peft import PeftModel
from transformers import AutoConfig, BitsAndBytesConfig
from trl.data_utils import is_conversational

from ..config import AdversarialConfig
from ..objectives import LOG_ODDS


if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset
    from transformers import PreTrainedModel


def check_discriminator(
    discriminator: "str | PreTrainedModel | PeftModel | None",
) -> "str | PreTrainedModel | PeftModel":
    """Check that there is a discriminator, and return it."""
    if discriminator is None:
        raise ValueError(
            "AdversarialTrainer needs a discriminator: the id of any sequence classifier or encoder, for example "
            "discriminator='distilbert/distilbert-base-uncased'. For fixed rewards alone there is trl.GRPOTrainer."
        )
    return discriminator


def check_density_offset(args: AdversarialConfig, peft_config: Any, real_dataset: Any) -> None:
    """Check that the generator can be compared with itself at the start, if the discriminator is to know of it."""
    if args.discriminator_density_offset and (peft_config is None or real_dataset is not None):
        raise ValueError(
            "discriminator_density_offset compares the generator with itself without adapters, on prompts and "
            "their references: give peft_config= (merge the adapters of a warm start first: "
            "model.merge_and_unload()) and no real_dataset=."
        )
    if args.discriminator_density_offset and args.discriminator_loss not in LOG_ODDS:
        raise ValueError(
            f"discriminator_density_offset adds log-odds to the logits, and with {args.discriminator_loss!r} the best "
            "logit is no log-odds: use 'bce' or 'bradley_terry', or leave the offset out."
        )


def check_token_credit(args: AdversarialConfig, **given: Any) -> None:
    """Check that nothing given stands in the way of paying tokens: what writes other text, or ranks completions."""
    if args.discriminator_credit != "token":
        return
    for name, value in given.items():
        if value is not None:
            reason = (
                "ranks whole completions, which the credit of single tokens could turn round"
                if name == "safety_gate"
                else "puts text of its own into completions"
            )
            raise ValueError(
                f"discriminator_credit='token' pays the tokens that the generator has written, and {name} {reason}: "
                "use discriminator_credit='sequence'."
            )


def check_gate_is_apart(gate: Any, discriminator: Any) -> None:
    """Check that the safety gate's classifier, which is frozen, is not the discriminator, which is trained."""
    if gate is not None and gate is discriminator:
        raise ValueError(
            "One model is given as safety gate and as discriminator. The gate's classifier is frozen and the "
            "discriminator is trained: load it twice."
        )


def check_quantised_generator(
    model: "str | PreTrainedModel | PeftModel", quantization_config: Any, peft_config: Any, args: AdversarialConfig
) -> None:
    """Check that a generator in 4 or 8 bits has adapters and does not generate with vLLM."""
    has_adapters = peft_config is not None or isinstance(model, PeftModel)
    if (has_adapters and not args.use_vllm) or not _loads_in_few_bits(model, quantization_config, args):
        return
    if not has_adapters:
        raise ValueError(
            "A generator in 4 or 8 bits cannot be trained as it is: quantised weights take no gradient. Give "
            "peft_config, for example LoraConfig(r=16, target_modules='all-linear'), or leave out its quantisation."
        )
    raise ValueError(
        "A generator in 4 or 8 bits cannot generate with vLLM: before each generation TRL merges the adapters into "
        "the weights that it sends, and merging into quantised weights rounds the adapters away and hands over packed "
        "weights. Set use_vllm=False, or leave out the quantisation."
    )


def _loads_in_few_bits(model: Any, quantization_config: Any, args: AdversarialConfig) -> bool:
    if not isinstance(model, str):  # it is as it was loaded, whatever the arguments say
        return getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False)
    arguments = args.model_init_kwargs or {}
    given = quantization_config or arguments.get("quantization_config")
    if given is None:  # it may have been saved in few bits
        config = AutoConfig.from_pretrained(
            model, revision=arguments.get("revision"), trust_remote_code=args.trust_remote_code
        )
        given = getattr(config, "quantization_config", None)
    if isinstance(given, dict):
        return bool(given.get("load_in_4bit") or given.get("load_in_8bit"))
    return isinstance(given, BitsAndBytesConfig) and (given.load_in_4bit or given.load_in_8bit)


def check_chat_template(datasets: "Iterable[Dataset | IterableDataset | None]", processing_class: Any) -> None:
    """Check that the generator's tokenizer can write out the prompts of datasets that hold conversations.

    Args:
        datasets (`Iterable[Dataset or IterableDataset]`): Prepared datasets; `None` among them is passed over.
        processing_class (`PreTrainedTokenizerBase` or `ProcessorMixin`): The generator's.
    """
    if processing_class.chat_template is not None:
        return
    for dataset in datasets:
        row = None if dataset is None else next(iter(dataset), None)
        if row is not None and is_conversational({"prompt": row["prompt"]}):
            raise ValueError(
                "The dataset holds conversations, and the generator's tokenizer has no chat template to write them "
                "out with. Set tokenizer.chat_template, for example to that of the model's instruction-tuned sister, "
                "and give the tokenizer as processing_class=. Or give plain text: `prompt` and `completion` as "
                "strings. (The discriminator's tokenizer needs no chat template.)"
            )
