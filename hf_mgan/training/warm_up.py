"""The warm-up: the discriminator learns alone, on completions of a generator that stays as it is.

In: a trainer whose discriminator has updates of the warm-up left. Out: nothing; the discriminator has made them, with
a bar, entries of the log, and checkpoints on the way.
"""

from collections import defaultdict
from typing import Any

from datasets import Dataset
from tqdm.auto import tqdm
from transformers.trainer_utils import SaveStrategy

from ..data import RealSampler
from .generation import prompts_apart


def warm_up(trainer: Any, generation_batch: list[dict[str, Any]], saves: bool) -> None:
    """Train the discriminator on completions of the generator as it stands.

    Before the first step checkpoints are saved on the way, as often as others are and when a signal asks for it.

    Args:
        trainer ([`AdversarialTrainer`]): Its trainer, which imports this module and can so not be named as a type.
        generation_batch (`list[dict]`): Rows; of a map-style set others of their number are drawn for each update.
        saves (`bool`): Whether this is before the first step.
    """
    args, discriminator, reward = trainer.args, trainer.discriminator, trainer._reward
    window = trainer._metrics["train"]
    if not saves:
        trainer._metrics["train"] = defaultdict(list)
    prompts = None
    if isinstance(trainer.train_dataset, Dataset):
        rank, processes = trainer.accelerator.process_index, trainer.accelerator.num_processes
        prompts = RealSampler(len(trainer.train_dataset), args.seed + 2, rank, processes)
        prompts.drawn = trainer._warmup_prompts_drawn
    every = max(int(trainer.state.logging_steps), 1)
    save_every = int(trainer.state.save_steps) if args.save_strategy == SaveStrategy.STEPS else 0
    with tqdm(
        total=args.discriminator_warmup_steps,
        initial=discriminator.num_updates,
        desc="discriminator warm-up",
        unit="update",
        disable=args.disable_tqdm or not trainer.is_world_process_zero(),
    ) as bar:
        while reward.is_warming_up:
            before, rows = discriminator.num_updates, generation_batch
            if prompts is not None:
                rows = [trainer.train_dataset[index] for index in prompts.draw(len(generation_batch))]
                trainer._warmup_prompts_drawn = prompts.drawn
            with prompts_apart(trainer):
                trainer._generate_and_score_completions(rows)
            now = discriminator.num_updates
            bar.update(now - before)
            if now // every > before // every or not reward.is_warming_up:
                trainer.log({"discriminator/warmup_step": now})
            if saves:
                if save_every and now // save_every > before // save_every:
                    trainer._save_now()
                trainer._stop_if_asked()
    trainer._metrics["train"] = window
