"""The demo's last part: the discriminator catches up on a generator that is done, and guides its sampling.

In: a generator and the folder of the discriminator that adversarial training has left. Out: the discriminator, fit for
this generator and calibrated, and sentences of both together.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..config import AdversarialConfig
from ..decoding import DecodingConfig, guided_sample
from ..discriminator import Discriminator
from ..training.final_updates import fit_discriminator
from .language import Language
from .models import MAX_TOKENS


THRESHOLDS = (0.0, 1.0, 2.0)  # of rejection, in nats
HELD_OUT = 2000  # real sentences that stop the discriminator's final updates, and calibrate it
HELD_OUT_SEED = 1_000_000  # apart from the seeds of all other sentences


def dataset_of(sentences: list[str]) -> Dataset:
    """Return sentences as a dataset."""
    return Dataset.from_dict({"text": sentences})


def held_out_sentences(language: Language, seed: int, count: int = HELD_OUT) -> Dataset:
    """Return real sentences that no model of a seed is trained on, nor measured with."""
    return dataset_of([" ".join(words) for words in language.sample(count, HELD_OUT_SEED + seed)])


def caught_up(
    source: Path,
    generator: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    sentences: Dataset,
    held_out: Dataset,
    args: AdversarialConfig,
    num_updates: int,
    on_update: Callable[[int], Any],
) -> Discriminator:
    """Load a discriminator and let it catch up on a generator.

    Args:
        source (`Path`): Its folder, which stays as it is.
        generator (`PreTrainedModel` or `PeftModel`): As in [`~training.final_updates.fit_discriminator`], and all that
            follow.
        tokenizer (`PreTrainedTokenizerBase`): See there.
        sentences (`Dataset`): See there.
        held_out (`Dataset`): See there.
        args ([`AdversarialConfig`]): See there.
        num_updates (`int`): See there.
        on_update (`Callable`): See there.

    Returns:
        [`Discriminator`]: Calibrated.
    """
    discriminator = Discriminator.from_pretrained(source)
    fit_discriminator(generator, tokenizer, discriminator, sentences, held_out, args, num_updates, on_update=on_update)
    return discriminator


def guided_texts(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, discriminator: Discriminator
) -> list[str]:
    """Draw ten sentences of a generator and its discriminator, at the second threshold."""
    config = DecodingConfig(threshold=THRESHOLDS[1], num_candidates=64, max_new_tokens=MAX_TOKENS)
    texts = guided_sample(model, tokenizer, discriminator, [[tokenizer.bos_token_id]] * 10, config).texts
    return [text for text in texts if text is not None]
