"""From datasets to the plain texts that the discriminator sees."""

from .inspection import inspected
from .prepare import check_is_dataset, form_of, prepare_dataset, prepare_datasets
from .prompts import answer_text, as_prompts, encode_prompts, plain_text, start_of_sequence
from .real_texts import RealBatch, RealSampler, RealTexts
from .rows import TRANSLATION_TEMPLATE
from .text_path import TextPath


__all__ = [
    "TRANSLATION_TEMPLATE",
    "RealBatch",
    "RealSampler",
    "RealTexts",
    "TextPath",
    "answer_text",
    "as_prompts",
    "check_is_dataset",
    "encode_prompts",
    "form_of",
    "inspected",
    "plain_text",
    "prepare_dataset",
    "prepare_datasets",
    "start_of_sequence",
]
