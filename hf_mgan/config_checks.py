"""What each setting of [`AdversarialConfig`] may be: its type and its range, said once."""

from transformers import SchedulerType
from transformers.training_args import OptimizerNames

from .checks import (
    COUNT,
    FLAG,
    INDEX,
    LABEL,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
    Check,
    Choice,
    Dict,
    Items,
    Number,
    Steps,
    Template,
    Text,
    integer,
    optional,
)
from .discriminator import REGULARIZATION, REPLAY_FRACTION
from .metrics.units import SPLITTERS
from .objectives import LOSSES, REWARDS


ADAM: dict[str, Check] = {
    "adam_beta1": Number(least=0, below=1),
    "adam_beta2": Number(least=0, below=1),
    "adam_epsilon": NOT_NEGATIVE,
}
PAIRS = r"[^=,]+=[^=,]+(,[^=,]+=[^=,]+)*"
# What the dict settings take.
DICT_SETTINGS: dict[str, Dict] = {
    "discriminator_optim_kwargs": Dict(
        keys={
            "optim": Choice(among=[name.value for name in OptimizerNames]),
            "optim_args": Text(what="pairs such as 'momentum=0.9,nesterov=True'", pattern=PAIRS, optional=True),
            "weight_decay": NOT_NEGATIVE,
            "max_grad_norm": Number(above=0, endless=True),
            "lr_scheduler_type": Choice(among=[name.value for name in SchedulerType]),
            "lr_scheduler_kwargs": Dict(optional=True),
            "warmup_steps": Steps(),
            **ADAM,
        },
        optional=True,
    ),
    "discriminator_model_init_kwargs": Dict(
        keys={
            "fresh_head": optional(FLAG),
            "gradient_checkpointing": optional(FLAG),
            "revision": Text(optional=True),
            "attn_implementation": Text(optional=True),
            "prefixes": optional(FLAG),
        },
        optional=True,
    ),
    "discriminator_regularization": Dict(keys=REGULARIZATION, optional=True),
    "discriminator_update_gating": Dict(
        keys={
            "ceiling": Number(above=0.5, most=1, optional=True, advice="It is an accuracy above chance."),
            "floor": Number(least=0, below=1, optional=True),
        },
        optional=True,
    ),
}
OPTIM_KEYS, MODEL_INIT_KEYS, REGULARIZATION_KEYS, UPDATE_GATING_KEYS = (
    ", ".join(setting.keys or ()) for setting in DICT_SETTINGS.values()
)
SETTINGS: dict[str, Check] = {
    "discriminator_loss": Choice(among=sorted(LOSSES)),
    "discriminator_reward": Choice(among=sorted(REWARDS)),
    "discriminator_weight": NOT_NEGATIVE,
    "discriminator_learning_rate": NOT_NEGATIVE,
    "discriminator_steps": COUNT,
    "discriminator_warmup_steps": INDEX,
    "discriminator_final_steps": INDEX,
    "discriminator_max_length": optional(COUNT),
    "discriminator_batch_size": optional(COUNT),
    "discriminator_label": optional(LABEL),
    "discriminator_replay_fraction": REPLAY_FRACTION,
    **DICT_SETTINGS,
    "real_text_coef": NOT_NEGATIVE,
    "unit": Choice(among=sorted(SPLITTERS)),
    "min_prompt_tokens": INDEX,
    "max_prompt_tokens": INDEX,
    "max_text_tokens": optional(COUNT),
    "dataset_num_proc": optional(COUNT),
    "source_lang": Text(optional=True),
    "target_lang": Text(optional=True),
    "translation_template": Template(fields=("source_lang", "target_lang", "source"), needed="source"),
}
# Those of TRL and transformers that this trainer reads too, or whose nan reaches both models. Upstream is silent about
# them, or speaks in the middle of training; what it says at construction is left to it.
INHERITED: dict[str, Check] = {
    "max_completion_length": integer(1, advice="Real texts are cut at it as completions are."),
    "num_generations": integer(
        2, advice="GRPO requires at least 2 generations per prompt to calculate the advantages."
    ),
    "num_generations_eval": optional(COUNT),
    "num_iterations": COUNT,
    "steps_per_generation": optional(COUNT),
    "generation_batch_size": optional(COUNT),
    "per_device_train_batch_size": COUNT,
    "per_device_eval_batch_size": COUNT,
    "gradient_accumulation_steps": COUNT,
    "max_steps": integer(),
    "num_train_epochs": NOT_NEGATIVE,
    "logging_steps": NOT_NEGATIVE,
    "seed": SEED,
    "learning_rate": NOT_NEGATIVE,
    "max_grad_norm": Number(least=0, endless=True, optional=True),
    **ADAM,
    "beta": NOT_NEGATIVE,
    "temperature": POSITIVE,
    "top_p": optional(SHARE),
    "top_k": integer(optional=True),
    "min_p": optional(SHARE),
    "repetition_penalty": optional(POSITIVE),
    "reward_weights": Items(each=Number(), several="a list of numbers", single=True, optional=True),
    "bf16": optional(FLAG),
    "fp16": FLAG,
    "use_vllm": FLAG,
    "trust_remote_code": FLAG,
}
