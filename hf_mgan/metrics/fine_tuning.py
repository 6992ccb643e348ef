"""A fine-tuned encoder: from texts to the log-odds that they are real, by all weights of a pretrained model.

In: the id or folder of an encoder, the different real and generated texts to train on, and those that say when to
stop. Out: a function from texts to log-odds. What is trained is a copy: files and loaded models stay as they are.

The recipe is that of Devlin et al. 2018, "BERT" ([1810.04805](https://huggingface.co/papers/1810.04805), appendix
A.3), AdamW with a linear schedule and dropout, with more passes over the few texts that there are (Mosbach et al.
2020, "On the stability of fine-tuning BERT", [2006.04884](https://huggingface.co/papers/2006.04884)). The learning
rate falls with the width of the encoder (Yang et al. 2022, "Tensor Programs V",
[2203.03466](https://huggingface.co/papers/2203.03466)).
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from tqdm.auto import tqdm

from .text_regression import LabelledTexts


if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LEARNING_RATE, AT_WIDTH = 2e-4, 384
EPOCHS, BATCH_SIZE = 10, 32
WARMUP_SHARE = 0.1  # of the steps
WEIGHT_DECAY = 0.01
MAX_GRADIENT_NORM = 1.0
MIN_STEPS = 100  # however few texts there are
EVALUATIONS = 20  # of the inner texts in all
PATIENCE = 4  # evaluations without a lower loss after which training stops
BATCHES_PER_POOL = 8  # among whose texts those of similar length go together


class PretrainedClassifier(NamedTuple):
    """A pretrained encoder with a new head of one label.

    Args:
        model (`PreTrainedModel`): A sequence classifier in float32.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer, with padding on the right.
        max_length (`int`): Tokens at which texts are cut.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    max_length: int


def load_with_new_head(encoder: str, seed: int) -> PretrainedClassifier:
    """Load an encoder as a sequence classifier; a head that its checkpoint has is left out.

    Args:
        encoder (`str`): Id on the Hub or folder of a model that `AutoModel` loads and of its tokenizer, bidirectional
            or causal.
        seed (`int`): Seed of the weights of the head; the state of the caller's random numbers stays as it is.

    Returns:
        [`PretrainedClassifier`]: On the first GPU, or else on the CPU.

    Raises:
        ValueError: If the encoder's weights are not those of a sequence classifier without its head, or the tokenizer
            is missing or has no token to pad with.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    from ..models import checked_max_length, load_processing_class

    tokenizer = load_processing_class(encoder, "encoder", "choose another encoder", padding_side="right")
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ValueError(
                f"The tokenizer of {encoder} has no padding token and no EOS token to take its place: choose another "
                "encoder, or save the tokenizer with a pad_token."
            )
        tokenizer.pad_token = tokenizer.eos_token
    config = AutoConfig.from_pretrained(encoder, num_labels=1)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        weights = AutoModel.from_pretrained(encoder, dtype=torch.float32).state_dict()
    if model.base_model.load_state_dict(weights, strict=False).missing_keys:
        raise ValueError(
            f"The weights of {encoder} are not those of a {type(model).__name__} without its head. If it has "
            "adapters, merge them and save the merged model."
        )
    # By it a causal classifier finds the last token. RoBERTa counts positions from the one that it was made with.
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return PretrainedClassifier(model.to(device), tokenizer, checked_max_length(model, tokenizer, None, "max_length"))


def fine_tune(
    pretrained: PretrainedClassifier,
    outer: LabelledTexts,
    inner: LabelledTexts,
    *,
    learning_rate: float | None = None,
    epochs: int = EPOCHS,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> Callable[[list[str]], Tensor]:
    """Fine-tune a copy of a classifier, and keep the weights at which the loss of the inner texts is lowest.

    Both sides have the same weight, whatever their numbers.

    Args:
        pretrained ([`PretrainedClassifier`]): The classifier, which stays as it is.
        outer ([`LabelledTexts`]): Texts that are trained on.
        inner ([`LabelledTexts`]): Texts that choose among the weights.
        learning_rate (`float`, *optional*): The highest one; 2e-4 at a width of 384 by default, half of it at twice
            the width. `benchmarks.two_sample` says what a test at this rate sees.
        epochs (`int`, *optional*, defaults to 10): Passes over the texts of the larger side, at most; more where they
            are less than 100 steps.
        batch_size (`int`, *optional*, defaults to 32): Texts per side and step.
        seed (`int`, *optional*, defaults to 0): Seed of batches and dropout; the state of the caller's random numbers
            stays as it is.

    Returns:
        `Callable`: From N texts to a `Tensor` of shape `(N,)`, float64, on the CPU: log-odds that a text is real, if
        both sides are equally likely beforehand.
    """
    from transformers import get_linear_schedule_with_warmup

    pretrained = pretrained._replace(model=copy.deepcopy(pretrained.model))
    model = pretrained.model
    if learning_rate is None:
        learning_rate = LEARNING_RATE * AT_WIDTH / model.config.get_text_config().hidden_size
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}], lr=learning_rate
    )
    num_steps = max(epochs * math.ceil(max(map(len, outer)) / batch_size), MIN_STEPS)
    scheduler = get_linear_schedule_with_warmup(optimizer, math.ceil(WARMUP_SHARE * num_steps), num_steps)
    interval = math.ceil(num_steps / EVALUATIONS)
    lowest, best, waited = math.inf, model.state_dict(), 0
    bar = tqdm(total=num_steps, unit="step", desc="fine-tuning", leave=False)
    with torch.random.fork_rng(), bar:
        torch.manual_seed(seed)
        model.train()
        for step, batch in enumerate(islice(_batches(outer, batch_size), num_steps), 1):
            sides = _logits(pretrained, batch.real + batch.generated).split([len(side) for side in batch])
            _loss(*sides).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
            optimizer.step()
            torch.clear_autocast_cache()  # of a caller's autocast, which would go on with the weights of before
            scheduler.step()
            optimizer.zero_grad()
            bar.update()
            if step % interval and step < num_steps:
                continue
            loss = _loss(*(_score(pretrained, side) for side in inner)).item()
            bar.set_postfix(loss=f"{loss:.3f}", lowest=f"{min(loss, lowest):.3f}")
            if loss < lowest:
                lowest, waited = loss, 0
                best = {name: value.clone() for name, value in model.state_dict().items()}
            else:
                waited += 1
                if waited == PATIENCE:
                    break
    model.load_state_dict(best)
    torch.clear_autocast_cache()
    return lambda texts: _score(pretrained, texts)


def _batches(texts: LabelledTexts, batch_size: int) -> Iterator[LabelledTexts]:
    """Yield batches with as many texts of either side, of similar lengths, without end; the smaller side recurs."""
    size = max(map(len, texts))
    while True:
        order = [list(islice(cycle(_shuffled(side)), size)) for side in texts]
        batches = []
        for start in range(0, size, batch_size * BATCHES_PER_POOL):
            pools = [sorted(side[start : start + batch_size * BATCHES_PER_POOL], key=len) for side in order]
            for place in range(0, len(pools[0]), batch_size):
                batches.append(LabelledTexts(*(pool[place : place + batch_size] for pool in pools)))
        yield from _shuffled(batches)


def _shuffled(entries: Sequence[Any]) -> list[Any]:
    return [entries[place] for place in torch.randperm(len(entries)).tolist()]


def _loss(real_logits: Tensor, generated_logits: Tensor) -> Tensor:
    """Compute the binary cross-entropy in nats, the mean of both sides' means."""
    return -(logsigmoid(real_logits).mean() + logsigmoid(-generated_logits).mean()) / 2


def _logits(pretrained: PretrainedClassifier, texts: list[str]) -> Tensor:
    """Return the logits of texts in one forward pass, of shape (len(texts),)."""
    model, tokenizer, max_length = pretrained
    rows = tokenizer(texts, truncation=True, max_length=max_length, verbose=False)["input_ids"]
    # The tokenizer of a causal model makes nothing of an empty text.
    rows = [row or [tokenizer.pad_token_id] for row in rows]
    batch = tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(model.device)
    return model(**batch).logits[:, 0]


@torch.no_grad()
def _score(pretrained: PretrainedClassifier, texts: list[str]) -> Tensor:
    """Return the logits of texts without dropout, of shape (len(texts),), float64, on the CPU."""
    pretrained.model.eval()
    scores = torch.empty(len(texts), dtype=torch.float64)
    for rows in torch.tensor([len(text) for text in texts]).argsort(stable=True).split(2 * BATCH_SIZE):
        scores[rows] = _logits(pretrained, [texts[row] for row in rows.tolist()]).double().cpu()
    pretrained.model.train()
    return scores


def refuse_discriminator(encoder: str, discriminator: "str | PreTrainedModel | PeftModel") -> None:
    """Refuse an encoder that has the weights of the discriminator, whatever their heads.

    Adapters make other weights of the model below them, so that model is no discriminator.

    Args:
        encoder (`str`): Id or folder of the encoder.
        discriminator (`str`, `PreTrainedModel` or `PeftModel`): Id or folder of the discriminator, or the model
            itself.

    Raises:
        ValueError: If they are one folder or id, or their weights are equal.
    """
    if _is_same_place(encoder, discriminator) or _have_equal_weights(encoder, discriminator):
        raise ValueError(
            f"The encoder {encoder} has the weights of the discriminator, and the generator was trained against "
            "those: a test through them finds what training has left to find. Choose another encoder. The pretrained "
            "model that the discriminator started as may be one, since it is fine-tuned anew."
        )


def _is_same_place(encoder: str, discriminator: "str | PreTrainedModel | PeftModel") -> bool:
    if not isinstance(discriminator, str):
        return False
    folders = Path(encoder), Path(discriminator)
    return encoder == discriminator or (all(folder.is_dir() for folder in folders) and folders[0].samefile(folders[1]))


def _have_equal_weights(encoder: str, discriminator: "str | PreTrainedModel | PeftModel") -> bool:
    from transformers import AutoConfig
    from transformers.utils import find_adapter_config_file

    if isinstance(discriminator, str):
        if find_adapter_config_file(discriminator) is not None:
            return False
        config = AutoConfig.from_pretrained(discriminator)
    else:
        config = discriminator.config
    configs = AutoConfig.from_pretrained(encoder), config
    shapes = [(one.model_type, one.get_text_config().hidden_size, one.get_text_config().vocab_size) for one in configs]
    if shapes[0] != shapes[1]:  # so that a large discriminator is not loaded for nothing
        return False
    weights = _weights_below_head(encoder), _weights_below_head(discriminator)
    smaller, larger = sorted(weights, key=len)  # one may have a pooler that the other lacks
    return smaller.keys() <= larger.keys() and all(
        value.shape == larger[name].shape and value.equal(larger[name]) for name, value in smaller.items()
    )


def _weights_below_head(model: "str | PreTrainedModel | PeftModel") -> dict[str, Tensor]:
    """Return the weights of a model without its head, on the CPU in float32, those that were drawn left out."""
    from peft import PeftModel
    from transformers import AutoModel

    drawn: set[str] = set()
    if isinstance(model, str):
        with torch.random.fork_rng():
            base, report = AutoModel.from_pretrained(model, dtype=torch.float32, output_loading_info=True)
        drawn = set(report["missing_keys"])
    else:
        base = (model.get_base_model() if isinstance(model, PeftModel) else model).base_model
    return {name: value.float().cpu() for name, value in base.state_dict().items() if name not in drawn}
