"""From datasets to the plain texts that the discriminator sees."""

from .prepare import TRANSLATION_TEMPLATE, prepare_dataset, prepare_datasets, start_of_sequence
from .real_texts import RealSampler, RealTexts
from .text_path import as_completions, as_prompts, encode_completions, plain_text


__all__ = [
    "TRANSLATION_TEMPLATE",
    "RealSampler",
    "RealTexts",
    "as_completions",
    "as_prompts",
    "encode_completions",
    "plain_text",
    "prepare_dataset",
    "prepare_datasets",
    "start_of_sequence",
]
