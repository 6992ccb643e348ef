"""Metrics of generated text: pure functions, one metric per file.

Where a function is named like its module, such as `mauve`, the name here is the function;
`from hf_mgan.metrics.mauve import quantize` reaches the rest of the module.
"""

from .bleu import ReferenceScore, bleu, chrf
from .distinct_n import distinct_n
from .divergences import best_value, jensen_shannon, kullback_leibler
from .duplicates import duplicates
from .features import encoder_features
from .frechet import frechet_distance
from .intervals import (
    Interval,
    auc,
    auc_interval,
    auc_standard_error,
    bootstrap_interval,
    jackknife_interval,
    paired_difference_interval,
    share_interval,
)
from .length import length_ratio, mean_length
from .likelihood import (
    ReversePerplexity,
    TextNll,
    nll_per_token,
    perplexity,
    reverse_perplexity,
    sequence_logps,
    small_language_model,
    tempered_logps,
    token_nlls,
)
from .mauve import MauveResult, mauve
from .memorisation import (
    Copying,
    Memorisation,
    longest_copied_ngram,
    memorisation,
    near_duplicate_share,
    near_duplicates,
)
from .module_path import module_path
from .repetition import repeated_share, repetition
from .self_bleu import self_bleu
from .two_sample_test import C2STResult, CalibrationBin, auc_difference, c2st, fine_tuned_c2st
from .units import split_into_units


__all__ = [
    "C2STResult",
    "CalibrationBin",
    "Copying",
    "Interval",
    "MauveResult",
    "Memorisation",
    "ReferenceScore",
    "ReversePerplexity",
    "TextNll",
    "auc",
    "auc_difference",
    "auc_interval",
    "auc_standard_error",
    "best_value",
    "bleu",
    "bootstrap_interval",
    "c2st",
    "chrf",
    "distinct_n",
    "duplicates",
    "encoder_features",
    "fine_tuned_c2st",
    "frechet_distance",
    "jackknife_interval",
    "jensen_shannon",
    "kullback_leibler",
    "length_ratio",
    "longest_copied_ngram",
    "mauve",
    "mean_length",
    "memorisation",
    "module_path",
    "near_duplicate_share",
    "near_duplicates",
    "nll_per_token",
    "paired_difference_interval",
    "perplexity",
    "repeated_share",
    "repetition",
    "reverse_perplexity",
    "self_bleu",
    "sequence_logps",
    "share_interval",
    "small_language_model",
    "split_into_units",
    "tempered_logps",
    "token_nlls",
]
