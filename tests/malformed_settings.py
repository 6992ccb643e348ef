"""Every setting of ours with values that it must not take, and what becomes of each of them.

A setting is described by its kind, from which its malformed values follow; the kinds stand here anew, so that a check
that allows too much is seen.
"""

import math
import re
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset

from hf_mgan import Discriminator, metrics
from hf_mgan.decoding import DecodingConfig, sample
from hf_mgan.discriminator import Calibration, Regularization, calibrate
from hf_mgan.evaluation.evaluator import GeneratorEvaluator
from hf_mgan.evaluation.settings import EvaluationConfig
from hf_mgan.experimental.token_credit import TokenCreditConfig
from hf_mgan.safety import SafetyGate
from hf_mgan.watchdog import Watchdog
from hf_mgan.watchdog.failure_modes import Thresholds

from .conftest import bert_classifier, causal_generator, generators_tokenizer, texts, tokenizer_of_pairs


NAN, INF = math.nan, math.inf
HUGE = 10**400  # more than a float can hold
SOURCES = str(Path(metrics.__file__).parents[1])


class Kind(NamedTuple):
    """What a setting may be.

    Args:
        wrong: Values that none of the kind may take.
        optional: Whether None is allowed.
    """

    wrong: tuple[Any, ...]
    optional: bool = False

    def malformed(self) -> list[Any]:
        return [*self.wrong, *([] if self.optional else [None])]


NO_NUMBERS = ("no", "5e-5", "", "5", True, False, [], [1], {}, b"5", 1j, object())


def integer(*wrong: Any, optional: bool = False) -> Kind:
    return Kind((*wrong, NAN, INF, -INF, 0.5, 20.0, HUGE, *NO_NUMBERS), optional)


def number(*wrong: Any, optional: bool = False) -> Kind:
    return Kind((*wrong, NAN, INF, -INF, HUGE, *NO_NUMBERS), optional)


def flag(optional: bool = False) -> Kind:
    return Kind(("no", "yes", "true", "", 2, 0.5, NAN, [], {}, b"no"), optional)


def text(*wrong: Any, optional: bool = False) -> Kind:
    return Kind((*wrong, "", NAN, 3, 0.5, True, [], ["a"], {}, b"a"), optional)


def choice(*wrong: Any) -> Kind:
    return Kind((*wrong, "", "no", NAN, 3, True, [], ["a"], {}, b"a"))


def mapping(*wrong: Any) -> Kind:
    return Kind((*wrong, "no", "{no", 0.1, 3, True, NAN, [], [("a", 1)], b"{}", {3: 1}, {"unheard_of": 1}), True)


def thing(*wrong: Any, optional: bool = True) -> Kind:
    return Kind((*wrong, 3, NAN, True, {"a": 1}, b"a", object()), optional)


COUNT, COUNT_OR_NONE = integer(0, -1), integer(0, -1, optional=True)
INDEX = integer(-1)
SEED = integer(-1, 2**32)
SHARE = number(-0.1, 1.5)
POSITIVE = number(0, 0.0, -1.0)
NOT_NEGATIVE = number(-1.0, -1e-9)
LEVEL = number(0, 1, -0.1, 95)
LABEL = text(-1, optional=True)._replace(wrong=("", NAN, 0.5, True, [], ["a"], {}, b"a", -1))

CONFIG = {
    "discriminator_loss": choice("BCE", "gan"),
    "discriminator_reward": choice("Minimax", "d"),
    "discriminator_weight": NOT_NEGATIVE,
    "discriminator_learning_rate": NOT_NEGATIVE,
    "discriminator_steps": COUNT,
    "discriminator_warmup_steps": INDEX,
    "discriminator_final_steps": INDEX,
    "discriminator_max_length": COUNT_OR_NONE,
    "discriminator_batch_size": COUNT_OR_NONE,
    "discriminator_label": LABEL,
    "discriminator_replay_fraction": number(-0.1, 1.0),
    "discriminator_optim_kwargs": mapping(),
    "discriminator_model_init_kwargs": mapping(),
    "discriminator_regularization": mapping(),
    "discriminator_update_gating": mapping(),
    "real_text_coef": NOT_NEGATIVE,
    "min_prompt_tokens": INDEX,
    "max_prompt_tokens": INDEX,
    "max_text_tokens": COUNT_OR_NONE,
    "dataset_num_proc": COUNT_OR_NONE,
    "unit": choice("Word"),
    "source_lang": text(optional=True),
    "target_lang": text(optional=True),
    "translation_template": text("{", "{other}", "{0}", "no source"),
}
KEYS = {
    "discriminator_optim_kwargs": {
        "optim": choice("adamm"),
        "optim_args": text("momentum", "momentum=0.5,", optional=True),
        "weight_decay": NOT_NEGATIVE,
        "max_grad_norm": number(0, -1.0)._replace(wrong=(0, -1.0, NAN, -INF, *NO_NUMBERS)),
        "lr_scheduler_type": choice("lineer"),
        "lr_scheduler_kwargs": Kind(("no", 3, True, NAN, [], [1], b"{}", {3: 1}), True),
        "warmup_steps": number(-1, 1.5),
        "adam_beta1": number(-0.1, 1.0),
        "adam_beta2": number(-0.1, 1.0),
        "adam_epsilon": NOT_NEGATIVE,
    },
    "discriminator_model_init_kwargs": {
        "fresh_head": flag(optional=True),
        "gradient_checkpointing": flag(optional=True),
        "revision": text(optional=True),
        "attn_implementation": text(optional=True),
        "prefixes": flag(optional=True),
    },
    "discriminator_regularization": {
        "label_smoothing": number(-0.1, 0.5),
        "logit_penalty": NOT_NEGATIVE,
        "token_dropout": number(-0.1, 1.0),
    },
    "discriminator_update_gating": {
        "ceiling": number(0.5, 1.1, optional=True),
        "floor": number(-0.1, 1.0, optional=True),
    },
}
# Settings of TRL and transformers that our part reads, or that make it read nan.
INHERITED_SETTINGS = {
    "max_completion_length": COUNT,
    "temperature": POSITIVE,
    "top_p": number(-0.1, 1.5, optional=True),
    "top_k": integer(optional=True),
    "min_p": number(-0.1, 1.5, optional=True),
    "repetition_penalty": number(0, -1.0, optional=True),
    "num_generations": integer(0, 1, 3, -4),
    "num_generations_eval": COUNT_OR_NONE,
    "num_iterations": COUNT,
    "steps_per_generation": COUNT_OR_NONE,
    "generation_batch_size": COUNT_OR_NONE,
    "per_device_train_batch_size": COUNT,
    "per_device_eval_batch_size": COUNT,
    "gradient_accumulation_steps": COUNT,
    "learning_rate": NOT_NEGATIVE,
    "beta": NOT_NEGATIVE,
    "max_grad_norm": Kind((-1.0, NAN, -INF, *NO_NUMBERS), True),
    "adam_beta1": number(-0.1, 1.0),
    "adam_beta2": number(-0.1, 1.0),
    "adam_epsilon": NOT_NEGATIVE,
    "max_steps": integer(),
    "num_train_epochs": NOT_NEGATIVE,
    "logging_steps": number(0, -1, 1.5),
    "seed": SEED,
    "bf16": flag(optional=True),
    "fp16": flag(),
    "use_vllm": flag(),
    "trust_remote_code": flag(),
    "reward_weights": Kind(("no", True, ["no"], [NAN], [INF], [True], [None], {}, b"a"), True),
}
DISCRIMINATOR = {
    "label": LABEL,
    "loss": choice("BCE"),
    "max_length": COUNT_OR_NONE,
    "batch_size": COUNT_OR_NONE,
    "bf16": flag(),
    "max_grad_norm": KEYS["discriminator_optim_kwargs"]["max_grad_norm"],
    "fp16": flag(),
    "gradient_checkpointing": flag(),
    "regularization": thing("no", []),
    "replay_fraction": number(-0.1, 1.0),
    "prefixes": flag(),
    "model": thing("no", optional=False),
    "processing_class": thing("no", optional=False),
}
GATE = {
    "classifier": thing([], optional=False),
    "threshold": number(0, -0.1, 1.5),
    "margin": POSITIVE,
    "batch_size": COUNT,
    "with_prompt": flag(),
}
GATE_OF_CLASSIFIER = {"label": LABEL, "max_length": COUNT_OR_NONE, "processing_class": thing("no")}
WATCHDOG = {
    "patience": COUNT,
    "thresholds": mapping("no"),
    "unsafe_limit": number(-0.1, 1.5, optional=True),
}
THRESHOLDS = {
    "saturated_accuracy": SHARE,
    "saturated_value": number(0.1),
    "informative_std": NOT_NEGATIVE,
    "variety_share": SHARE,
    "entropy_share": SHARE,
    "zero_std_share": SHARE,
    "reward_std": NOT_NEGATIVE,
    "length_tolerance": SHARE,
    "length_correlation": SHARE,
}
EVALUATOR = {
    "held_out": thing("no", [], optional=False),
    "num_samples": integer(0, -1, 15),
    "temperature": POSITIVE,
    "max_completion_length": COUNT_OR_NONE,
    "encoder": text(optional=True),
    "training": thing("no", []),
    "safety": thing([]),
    "bleu": flag(),
    "reverse_perplexity": flag(),
    "seed": SEED,
    "batch_size": COUNT,
}
EVALUATION = {
    "output_dir": text(),
    "num_samples": integer(0, -1, 2),
    "temperatures": Kind((0.7, "no", [], ["no"], ["0.7"], [NAN], [INF], [0], [-1.0], [True], [None], {}, b"a", True)),
    "max_completion_length": COUNT,
    "batch_size": COUNT,
    "encoder": text(optional=True),
    "fine_tuned_test": flag(),
    "reverse_perplexity": flag(),
    "unit": choice("Word"),
    "num_training_texts": COUNT,
    "baseline": text(optional=True),
    "level": LEVEL,
    "dtype": choice("float33", "half an hour"),
    "seed": SEED,
}
DECODING = {
    "method": choice("Rejection"),
    "threshold": number(),
    "num_candidates": COUNT,
    "temperature": number(0, -1.0, optional=True),
    "max_new_tokens": COUNT_OR_NONE,
    "batch_size": COUNT,
    "seed": SEED,
    "generation_kwargs": mapping(),
}
GENERATION = {
    "top_k": integer(-1, optional=True),
    "top_p": number(-0.1, 1.5, optional=True),
    "top_h": number(0, -0.1, 1.5, optional=True),
    "min_p": number(-0.1, 1.5, optional=True),
    "typical_p": number(0, -0.1, 1.5, optional=True),
    "epsilon_cutoff": number(-0.1, 1.0, optional=True),
    "eta_cutoff": number(-0.1, 1.0, optional=True),
    "repetition_penalty": number(0, -1.0, optional=True),
    "no_repeat_ngram_size": integer(-1, optional=True),
    "bad_words_ids": Kind(("no", 3, True, NAN, [3], [], [["no"]], [[-1]], [[]], b"a"), True),
    "suppress_tokens": Kind(("no", 3, True, NAN, ["no"], [-1], [0.5], [True], b"a"), True),
    "sequence_bias": Kind(("no", 3, True, NAN, [3], b"a", {}, {"a": 1.0}), True),
}
SAMPLE = {
    "max_new_tokens": COUNT,
    "temperature": POSITIVE,
    "seed": SEED,
    "batch_size": COUNT,
    "generation_kwargs": Kind(("no", 3, True, [1], b"a", {3: 1}, {"unheard_of": 1}), True),
}
CALIBRATION = {
    "slope": number(),
    "intercept": number(),
    "label": INDEX,
    "with_prompt": flag(),
    "temperature": POSITIVE,
    "max_new_tokens": COUNT,
    "generation_kwargs": Kind(("no", 3, True, [1], b"a", {3: 1})),
    "prefixes": flag(),
    "previous_threshold": number(optional=True),
    "previous_draws": number(0.9, 0, -1, optional=True),
}
CALIBRATE = {name: CALIBRATION[name] for name in ("label", "with_prompt", "temperature", "max_new_tokens", "prefixes")}
TRAINER = {
    "model": thing("", [], optional=False),
    "reward_funcs": thing([3], [None], ["", 3], ""),
    "train_dataset": thing("no", [], [{"text": "a"}]),
    "eval_dataset": thing("no", [], [{"text": "a"}]),
    "processing_class": thing("no", []),
    "reward_processing_classes": thing("no"),
    "callbacks": thing("no", [3], ["no"], [None], optional=True),
    "quantization_config": Kind(("no", 3, True, [], b"a", object()), True),
    "peft_config": thing("no", []),
    "discriminator": thing("", [], optional=False),
    "discriminator_processing_class": thing("no", []),
    "discriminator_peft_config": thing("no", []),
    "discriminator_quantization_config": thing("no", []),
    "real_dataset": thing("no", [], [{"text": "a"}], ["a"]),
    "safety_gate": thing([], ""),
    "evaluator": thing("yes", "no", []),
    "args": thing("no", []),
}
FEATURES = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
WORDS = [line.split() for line in texts(30)]
REAL, FAKE = texts(40, seed=1), texts(40, seed=2)
TEXTS = Kind(("a b c", 3, NAN, True, b"a"))  # a string is a sequence of strings, its letters
METRICS: dict[str, tuple[Callable, dict[str, Any], dict[str, Kind]]] = {
    "bleu": (metrics.bleu, {"texts": REAL, "references": FAKE}, {
        "texts": TEXTS, "references": TEXTS, "tokenize": choice("13b")}),
    "chrf": (metrics.chrf, {"texts": REAL, "references": FAKE}, {"texts": TEXTS, "references": TEXTS}),
    "distinct_n": (metrics.distinct_n, {"texts": WORDS, "n": 2}, {"texts": TEXTS, "n": COUNT}),
    "duplicates": (metrics.duplicates, {"texts": REAL}, {"texts": TEXTS}),
    "self_bleu": (metrics.self_bleu, {"texts": WORDS, "n": 2}, {"texts": TEXTS, "n": COUNT}),
    "repetition": (metrics.repetition, {"texts": WORDS, "n": 2}, {"texts": TEXTS, "n": COUNT}),
    "repeated_share": (metrics.repeated_share, {"text": WORDS[0], "n": 2}, {"n": COUNT}),
    "bootstrap_interval": (metrics.bootstrap_interval, {"values": [0.0, 1.0], "n": 9}, {
        "n": COUNT, "level": LEVEL, "seed": SEED}),
    "paired_difference_interval": (metrics.paired_difference_interval, {
        "first": [0.0, 1.0], "second": [1.0, 1.0], "n": 9}, {"n": COUNT, "level": LEVEL, "seed": SEED}),
    "jackknife_interval": (metrics.jackknife_interval, {"values": [0.0, 1.0, 2.0], "statistic": sum, "groups": 3}, {
        "groups": integer(0, 1, -1), "level": LEVEL}),
    "share_interval": (metrics.share_interval, {"verdicts": [True, False]}, {"level": LEVEL}),
    "auc_interval": (metrics.auc_interval, {"real_scores": FEATURES[:, 0], "fake_scores": FEATURES[:, 1]}, {
        "level": LEVEL}),
    "mauve": (metrics.mauve, {"real_features": FEATURES, "generated_features": FEATURES + 1}, {
        "num_clusters": COUNT_OR_NONE, "scaling": POSITIVE, "pseudocount": NOT_NEGATIVE, "seed": SEED}),
    "near_duplicates": (metrics.near_duplicates, {"texts": WORDS, "corpus": WORDS}, {
        "texts": TEXTS, "corpus": TEXTS, "threshold": number(0, 1.5, -0.1)}),
    "memorisation": (metrics.memorisation, {"texts": WORDS, "held_out": WORDS, "corpus": WORDS}, {
        "threshold": number(0, 1.5, -0.1)}),
    "c2st": (metrics.c2st, {"real": REAL, "generated": FAKE}, {
        "real": TEXTS, "generated": TEXTS, "seed": SEED, "level": LEVEL,
        "encoder": Kind(("", 3, NAN, True, [], {}, b"a"), True)}),
    "fine_tuned_c2st": (metrics.fine_tuned_c2st, {"real": REAL, "generated": FAKE, "encoder": "not/there"}, {
        "real": TEXTS, "generated": TEXTS, "encoder": text(), "learning_rate": number(0, -1.0, optional=True),
        "epochs": COUNT, "batch_size": COUNT, "seed": SEED, "level": LEVEL}),
    "encoder_features": (metrics.encoder_features, {"encoder": "not/there"}, {
        "encoder": text(), "batch_size": COUNT, "max_length": COUNT_OR_NONE}),
    "sequence_logps": (metrics.sequence_logps, {"prompt_ids": [[1]], "completion_ids": [[2]]}, {
        "temperature": POSITIVE, "batch_size": COUNT_OR_NONE}),
    "tempered_logps": (metrics.tempered_logps, {"prompt_ids": [[1]], "completion_ids": [[2]], "temperatures": [1.0]}, {
        "temperatures": Kind(tuple(one for one in EVALUATION["temperatures"].wrong if one != [])),
        "batch_size": COUNT_OR_NONE}),
    "token_nlls": (metrics.token_nlls, {"prompt_ids": [[1]], "completion_ids": [[2]]}, {"batch_size": COUNT}),
    "reverse_perplexity": (metrics.reverse_perplexity, {
        "generated_ids": [[2]], "real_ids": None, "test_ids": [[2]], "start_token_id": 1, "epochs": 1}, {
        "start_token_id": INDEX, "epochs": COUNT, "learning_rate": POSITIVE, "batch_size": COUNT, "seed": SEED}),
    "small_language_model": (metrics.small_language_model, {"vocab_size": 4, "max_length": 4}, {
        "vocab_size": COUNT, "max_length": COUNT, "seed": SEED}),
}  # fmt: skip


class Attempt(NamedTuple):
    """One malformed value.

    Args:
        target: What it is given to.
        setting: The setting, or the key of a dict setting, that the message has to name.
        value: The value.
        make: Constructs the target with it.
    """

    target: str
    setting: str
    value: Any
    make: Callable[[], Any]

    @property
    def name(self) -> str:
        return f"{self.target}: {self.setting}={self.value!r:.40}"


def attempts(make_config: Callable, make_trainer: Callable) -> Iterator[Attempt]:
    """Give every malformed value of every setting."""

    def of(target: str, kinds: dict[str, Kind], make: Callable[..., Any]) -> Iterator[Attempt]:
        for setting, kind in kinds.items():
            for value in kind.malformed():
                yield Attempt(target, setting, value, lambda s=setting, v=value: make(**{s: v}))

    yield from of("AdversarialConfig", CONFIG, make_config)
    for setting, kinds in KEYS.items():
        yield from of(setting, kinds, lambda setting=setting, **keys: make_config(**{setting: keys}))
    yield from of("inherited", INHERITED_SETTINGS, make_config)
    credit = {"config_class": TokenCreditConfig, "scale_rewards": "none"}
    yield from of("TokenCreditConfig", {"discount": SHARE}, lambda **changes: make_config(**credit, **changes))

    classifier, pairs = bert_classifier(), tokenizer_of_pairs()
    discriminator = {"model": classifier, "processing_class": pairs}
    yield from of("Discriminator", DISCRIMINATOR, lambda **changes: Discriminator(**{**discriminator, **changes}))
    yield from of("Regularization", KEYS["discriminator_regularization"], Regularization)

    gate = {"classifier": lambda completions: [0.0] * len(completions)}
    yield from of("SafetyGate", GATE, lambda **changes: SafetyGate(**{**gate, **changes}))
    of_classifier = {"classifier": classifier, "processing_class": pairs}
    yield from of("SafetyGate", GATE_OF_CLASSIFIER, lambda **changes: SafetyGate(**{**of_classifier, **changes}))
    yield from of("Watchdog", WATCHDOG, Watchdog)
    yield from of("Thresholds", THRESHOLDS, Thresholds)
    yield from of("Watchdog thresholds", THRESHOLDS, lambda **keys: Watchdog(thresholds=keys))

    held_out = {"held_out": Dataset.from_dict({"text": REAL}), "num_samples": 16}
    yield from of("GeneratorEvaluator", EVALUATOR, lambda **changes: GeneratorEvaluator(**{**held_out, **changes}))
    yield from of("EvaluationConfig", EVALUATION, EvaluationConfig)
    yield from of("DecodingConfig", DECODING, DecodingConfig)
    yield from of("generation_kwargs", GENERATION, lambda **keys: DecodingConfig(generation_kwargs=keys))
    model, tokenizer = causal_generator(), generators_tokenizer()
    drawn = {"prompts": ["<s>"], "max_new_tokens": 2}
    yield from of("sample", SAMPLE, lambda **changes: sample(model, tokenizer, **{**drawn, **changes}))
    known = {"slope": 1.0, "intercept": 0.0, "label": 0, "with_prompt": False, "temperature": 1.0}
    known |= {"max_new_tokens": 8, "num_texts": 20, "auc": (0.5, 0.4, 0.6), "loss": 0.7, "uncalibrated_loss": 0.7}
    known |= {"error": 0.1, "uncalibrated_error": 0.1}
    yield from of("Calibration", CALIBRATION, lambda **changes: Calibration(**{**known, **changes}))
    logits = {"real_logits": FEATURES[:, 0], "fake_logits": FEATURES[:, 1]}
    logits |= {name: known[name] for name in ("label", "with_prompt", "temperature", "max_new_tokens")}
    yield from of("calibrate", CALIBRATE, lambda **changes: calibrate(**{**logits, **changes}))

    for name, (function, arguments, kinds) in METRICS.items():
        takes_model = {"model": model} if name in ("sequence_logps", "tempered_logps", "token_nlls") else {}
        takes_model |= {"model": model} if name == "reverse_perplexity" else {}
        call = lambda f=function, a=arguments | takes_model, **changes: f(**{**a, **changes})  # noqa: E731
        yield from of(name, kinds, call)

    yield from of("AdversarialTrainer", TRAINER, make_trainer)


def outcome(attempt: Attempt) -> tuple[str, str]:
    """Return the class of what a malformed value leads to, and the message.

    `ours`: a `ValueError` or `TypeError` of ours that names the setting; `upstream`: such an error of a library that
    names it; `raw`: any other exception; `silent`: none.
    """
    try:
        attempt.make()
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        named = re.search(rf"(?<![A-Za-z]){re.escape(attempt.setting)}(?![A-Za-z_])", str(error)) is not None
        told = type(error) in (ValueError, TypeError) and named and str(frame.line).startswith("raise")
        of_us = frame.filename.startswith(SOURCES)
        return ("ours" if of_us else "upstream") if told else "raw", f"{type(error).__name__}: {error}"
    return "silent", ""
