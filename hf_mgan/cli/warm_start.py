"""The warm start of `hf-mgan train`: supervised fine-tuning of the generator, on the same data and before all else.

In: the arguments of the command and rows of the dataset. Out: the generator, with its adapters, and its tokenizer.
Both are saved in `warm_start/`: what adversarial training is compared with, and where it can begin again.
"""

from pathlib import Path
from typing import cast

from datasets import Dataset
from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import ModelConfig, SFTConfig, SFTTrainer, get_quantization_config

from ..config import AdversarialConfig
from ..data import prepare_dataset
from ..models import load_processing_class, save_quantisation
from ..training.generator import Generator


FOLDER = "warm_start"


def warm_started(
    model: ModelConfig,
    args: AdversarialConfig,
    data: Dataset,
    peft_config: PeftConfig | None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    steps: int,
    learning_rate: float,
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """Fine-tune the generator with TRL's `SFTTrainer`, with the batch size, precision and seed of `args`, and save it.

    Args:
        model (`ModelConfig`): The generator and its quantisation.
        args ([`AdversarialConfig`]): Settings of the adversarial training that follows.
        data (`Dataset`): Rows as that training takes them.
        peft_config (`PeftConfig`, *optional*): The generator's adapters.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): Its tokenizer; that beside it by default.
        steps (`int`): Number of steps.
        learning_rate (`float`): Learning rate.

    Returns:
        `tuple`: The generator, with its adapters, and its tokenizer, which pads on the left.
    """
    name, quantization_config = cast(str, model.model_name_or_path), get_quantization_config(model)
    if tokenizer is None:
        tokenizer = load_processing_class(
            name,
            "generator",
            "name another one",
            revision=model.model_revision,
            trust_remote_code=args.trust_remote_code,
            padding_side="left",
        )
    generator = Generator(name, peft_config, args)
    has_adapters = generator.adapters is not None
    prepared = prepare_dataset(data, tokenizer, **args.prompt_arguments())
    trainer = SFTTrainer(
        model=generator.load_adapters(quantization_config) if has_adapters else name,
        args=SFTConfig(
            str(Path(args.output_dir) / FOLDER),
            max_steps=steps,
            learning_rate=learning_rate,
            per_device_train_batch_size=args.per_device_train_batch_size,
            gradient_accumulation_steps=args.gradient_accumulation_steps,
            model_init_kwargs=None if has_adapters else args.model_init_kwargs,
            seed=args.seed,
            bf16=args.bf16,
            fp16=args.fp16,
            use_cpu=args.use_cpu,
            report_to=args.report_to,
            logging_steps=args.logging_steps,
            gradient_checkpointing=args.gradient_checkpointing,
            save_strategy="no",
        ),
        train_dataset=prepared.select_columns(["prompt", "completion"]),
        processing_class=tokenizer,
        quantization_config=None if has_adapters else quantization_config,
        peft_config=peft_config,
    )
    trainer.train()
    trainer.save_model()
    if trainer.args.should_save:
        save_quantisation(cast("PreTrainedModel | PeftModel", trainer.model), str(trainer.args.output_dir))
    trainer.accelerator.print(f"The generator after the warm start is in {trainer.args.output_dir}.")
    # transformers declares the model as optional, for trainers that make theirs later.
    return cast("PreTrainedModel | PeftModel", trainer.model), tokenizer
