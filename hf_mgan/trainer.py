"""Adversarial training: TRL's GRPO, with a reward that is learnt at the same time.

One generation batch flows so. TRL draws rows, generates completions and asks for their rewards (`_calculate_rewards`).
There completions and real texts are written as plain text in the same way (`data`), run through the discriminator
together, and the logits of the completions are their reward; in training the discriminator then takes its step. TRL
turns the rewards into advantages and moves the generator. Everything else is TRL's.
"""

import copy
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from datasets import Dataset, IterableDataset
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from transformers.trainer_callback import TrainerCallback
from trl import GRPOTrainer

from . import preconditions
from .checkpoint import FOLDER, MODEL_FOLDER, dtypes_kept, model_folder, read_state, write_state
from .config import AdversarialConfig
from .data import RealSampler, RealTexts, plain_text, prepare_dataset
from .density import log_density_drop
from .discriminator import DiscriminatorOutput, prepare_quantised_training
from .further_rewards import as_list, matching
from .model_card import PAPER, TAG_NAMES, extend_model_card
from .objectives import PAIRED, REWARDS
from .player_loading import load_discriminator, load_generator_processing_class, shared_base


if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import BitsAndBytesConfig, ProcessorMixin


class AdversarialTrainer(GRPOTrainer):
    """Trainer for generative adversarial fine-tuning of a language model.

    The generator is any causal language model; the discriminator is any sequence classifier, trained at the same time
    to tell its completions from real text:

    min_G max_D V(D, G) = E_t[log D(t)] + E_s[log(1 - D(G(s)))]

    (Goodfellow et al. 2014, [1406.2661](https://huggingface.co/papers/1406.2661)). The generator descends by policy
    gradient, since text is discrete (SeqGAN, [1609.05473](https://huggingface.co/papers/1609.05473)), here that of
    [`~trl.GRPOTrainer`], from which everything is inherited that is not named below.

    These members of TRL and transformers are overridden; each calls `super()`:

    - `_calculate_rewards`: sees completions and rows once per generation batch, so here the discriminator scores and
      learns;
    - `_prepare_inputs`: comes before the first generation, so here the discriminator's warm-up takes place;
    - `create_scheduler`: learns the number of steps, which the discriminator's schedule needs;
    - `_set_signature_columns_if_needed`: keeps the references when unused columns are dropped;
    - `_get_train_sampler`, `_load_from_checkpoint`: a resumed run goes on in the order of its epoch and in the
      precision of its adapters (see there);
    - `save_model`, `_save_optimizer_and_scheduler`, `_load_optimizer_and_scheduler`: save and load the second player;
    - `create_model_card`: adds the discriminator to the card.

    Example:
    ```python
    from datasets import load_dataset
    from hf_mgan import AdversarialTrainer
    from peft import LoraConfig

    trainer = AdversarialTrainer(
        model="Qwen/Qwen2.5-0.5B",
        discriminator="distilbert/distilbert-base-uncased",
        train_dataset=load_dataset("json", data_files="stories.jsonl", split="train"),
        peft_config=LoraConfig(),
    )
    trainer.train()
    ```

    Args:
        model (`str`, `PreTrainedModel` or `PeftModel`): The generator, as in [`~trl.GRPOTrainer`].
        reward_funcs (*optional*): *Further* rewards beside the discriminator's, as in [`~trl.GRPOTrainer`];
            `reward_weights` and `reward_processing_classes` belong to them.
        args ([`AdversarialConfig`], *optional*): Settings; the defaults with `output_dir` `<model>-GAN` if missing.
        train_dataset (`Dataset` or `IterableDataset`): Rows with `text`, `prompt` and `completion`, `messages` or
            `translation`; see [`prepare_dataset`].
        eval_dataset (*optional*): The same, one set or a dict of sets.
        processing_class (*optional*): The generator's tokenizer or processor, as in [`~trl.GRPOTrainer`].
        reward_processing_classes (*optional*): Those of the models among `reward_funcs`, as there.
        callbacks, optimizers, quantization_config, peft_config, tools, rollout_func, environment_factory: As in
            [`~trl.GRPOTrainer`]; all of them concern the generator.
        discriminator (`str`, `PreTrainedModel` or `PeftModel`): The discriminator: Hub id or folder of a classifier or
            of any model that can carry a classification head, or a sequence classifier. Or the very object that is
            `model`: the two players then share one base, see [`~discriminator.shared_base.classifier_on`].
        discriminator_processing_class (`PreTrainedTokenizerBase`, *optional*): Its tokenizer; loaded with it by
            default.
        discriminator_peft_config (`PeftConfig`, *optional*): Adapters to train in place of the whole discriminator.
        discriminator_quantization_config (`BitsAndBytesConfig`, *optional*): Its quantisation; needs adapters.
        real_dataset (`Dataset`, *optional*): Real texts (column `text`) that belong to no prompt, in place of the
            references. The discriminator then sees completions without their prompts.

    Raises:
        TypeError: If `args` or a player is of the wrong type.
        ValueError: If the discriminator or the real texts are missing, or settings contradict each other.
    """

    # Narrower than transformers declares them, and never None once the trainer is made.
    args: AdversarialConfig
    model: PreTrainedModel | PeftModel
    train_dataset: Dataset | IterableDataset
    _tag_names = TAG_NAMES
    _name = "adversarial training"
    _paper = PAPER

    def __init__(
        self,
        model: "str | PreTrainedModel | PeftModel",
        reward_funcs: Any = None,
        args: AdversarialConfig | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Any = None,
        processing_class: "PreTrainedTokenizerBase | ProcessorMixin | None" = None,
        reward_processing_classes: "PreTrainedTokenizerBase | list[PreTrainedTokenizerBase] | None" = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        quantization_config: "BitsAndBytesConfig | None" = None,
        peft_config: "PeftConfig | None" = None,
        tools: list[Callable] | None = None,
        rollout_func: Callable | None = None,
        environment_factory: Any = None,
        *,
        discriminator: "str | PreTrainedModel | PeftModel | None" = None,
        discriminator_processing_class: PreTrainedTokenizerBase | None = None,
        discriminator_peft_config: "PeftConfig | None" = None,
        discriminator_quantization_config: "BitsAndBytesConfig | None" = None,
        real_dataset: Dataset | None = None,
    ) -> None:
        if args is None:
            name = model if isinstance(model, str) else model.config._name_or_path
            args = AdversarialConfig(f"{name.rstrip('/').split('/')[-1]}-GAN")
        if not isinstance(args, AdversarialConfig):
            raise TypeError(
                f"args must be an AdversarialConfig, got {type(args).__name__}. It takes the same arguments: "
                "`from hf_mgan import AdversarialConfig`."
            )
        discriminator = preconditions.check_discriminator(discriminator)
        preconditions.check_density_offset(args, peft_config, real_dataset)
        preconditions.check_quantised_generator(model, quantization_config, peft_config, args)
        reward_funcs = as_list(reward_funcs)
        # TRL takes None for a function, and declares that every reward has a processing class.
        all_processing_classes: list = [
            *matching(reward_processing_classes, reward_funcs, "reward processing classes"),
            None,
        ]
        weights = matching(args.reward_weights, reward_funcs, "reward weights")

        if processing_class is None:
            processing_class = load_generator_processing_class(model, args)
        tokenizer = (
            processing_class if isinstance(processing_class, PreTrainedTokenizerBase) else processing_class.tokenizer
        )
        prompt_arguments = args.prompt_arguments()
        if train_dataset is not None:
            train_dataset = prepare_dataset(train_dataset, tokenizer, **prompt_arguments)
        if isinstance(eval_dataset, dict):
            eval_dataset = type(eval_dataset)(
                {key: prepare_dataset(one, tokenizer, **prompt_arguments) for key, one in eval_dataset.items()}
            )
        elif eval_dataset is not None:
            eval_dataset = prepare_dataset(eval_dataset, tokenizer, **prompt_arguments)
        if rollout_func is None:  # which renders prompts itself
            evaluated = eval_dataset.values() if isinstance(eval_dataset, dict) else [eval_dataset]
            preconditions.check_chat_template([train_dataset, *evaluated], processing_class)

        real_texts = RealTexts(
            train_dataset,
            real_dataset,
            paired=args.discriminator_loss in PAIRED,
            tokenizer=tokenizer,
            max_completion_length=args.max_completion_length,
            seed=args.seed,
            rank=args.process_index,
            world_size=args.world_size,
        )

        set_seed(args.seed)  # a fresh classification head is random
        if discriminator is model and isinstance(model, (PreTrainedModel, PeftModel)):
            discriminator = shared_base(model, peft_config, discriminator_peft_config)
            discriminator_processing_class = discriminator_processing_class or tokenizer
        player = load_discriminator(
            discriminator,
            discriminator_processing_class,
            discriminator_peft_config,
            discriminator_quantization_config,
            args,
        )

        # TRL gets its own arguments without the weights, which it would compare with the number of all rewards.
        trl_args = copy.copy(args)
        trl_args.reward_weights = None
        super().__init__(
            model=model,
            reward_funcs=[*reward_funcs, self._reward_function()],
            args=trl_args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            reward_processing_classes=all_processing_classes,
            callbacks=callbacks,
            optimizers=optimizers,
            quantization_config=quantization_config,
            peft_config=peft_config,
            tools=tools,
            rollout_func=rollout_func,
            environment_factory=environment_factory,
        )
        prepare_quantised_training(self.model)
        self.args.reward_weights = args.reward_weights
        self.reward_weights[: len(weights)] = torch.tensor([1.0 if weight is None else weight for weight in weights])
        self.reward_weights[len(weights)] = args.discriminator_weight
        if self.reward_func_names.count(FOLDER) > 1:
            raise ValueError("A reward function is called 'discriminator', which names this trainer's own: rename it.")

        self.discriminator = player.to(self.accelerator.device)
        self._real_texts = real_texts
        self._rewards: list[float | None] = []  # TRL's type of rewards; none of them is None
        self._resumed_epoch = 0
        self._warming_up = False

    def _reward_function(self) -> Callable[..., list[float | None]]:
        def discriminator(**_: Any) -> list[float | None]:
            return self._rewards

        return discriminator  # its name is the metric's: rewards/discriminator/mean

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: list, completions: list, completion_ids_list: list
    ) -> Tensor:
        fakes = [plain_text(completion) for completion in completions]
        offsets = self._offsets(prompts, completion_ids_list)
        updates = self.args.discriminator_steps if self.model.training else 1
        if self._warming_up:
            updates = min(updates, self.args.discriminator_warmup_steps - self.discriminator.num_updates)
        outputs = [self._confront(inputs, prompts, fakes, offsets) for _ in range(updates)]
        self._rewards = REWARDS[self.args.discriminator_reward](outputs[0].fake_logits).tolist()
        self._log_discriminator(outputs[0])
        if self._warming_up:
            # The generator does not learn from this batch, so the user's rewards, which may cost money, are not asked.
            shape = len(prompts) * self.accelerator.num_processes, len(self.reward_funcs)
            return torch.zeros(shape, device=self.accelerator.device)
        return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)

    def _confront(
        self, inputs: list[dict[str, Any]], prompts: list, fakes: list[str], offsets: Tensor | None
    ) -> DiscriminatorOutput:
        """Show the discriminator completions and real texts; in training it learns from them."""
        training = self.model.training
        references, real_prompts = (self._real_texts.draw if training else self._real_texts.held_out)(inputs)
        return (self.discriminator.update if training else self.discriminator.evaluate)(
            self._real_texts.shown_prompts(prompts),
            fakes,
            references,
            self._real_texts.shown_prompts(real_prompts),
            completion_offsets=offsets,
            reference_offsets=self._offsets(real_prompts, references),
        )

    def _offsets(self, prompts: list, completions: list) -> Tensor | None:
        """Return by how much the generator finds texts less likely than at the start, if the discriminator is to know.

        Completions come as tokens; references as text, which gets its end token unless it was cut.
        """
        if not self.args.discriminator_density_offset or self._warming_up:  # the generator has not moved yet
            return None
        if isinstance(completions[0], str):
            limit = self.max_completion_length
            encoded = self._tokenizer(completions, add_special_tokens=False)["input_ids"]
            completions = [[*ids, self._tokenizer.eos_token_id][:limit] for ids in encoded]
        return log_density_drop(
            self.accelerator.unwrap_model(self.model),
            self._tokenize_prompts(prompts)[0],
            completions,
            self.temperature,
            self.args.per_device_train_batch_size,
        )

    def _log_discriminator(self, output: DiscriminatorOutput) -> None:
        """Add the figures of a batch to TRL's metrics, averaged over processes; TRL leaves out what is nan."""
        figures = output.figures()
        device = self.accelerator.device
        stacked = torch.stack([figure.float().to(device) for figure in figures.values()])
        means = self.accelerator.gather(stacked[None]).mean(0).tolist()
        mode = "train" if self.model.training else "eval"
        for name, mean in zip(figures, means, strict=True):
            if mode == "train" or mean == mean:  # an evaluation has no gradient and no learning rate
                self._metrics[mode][f"discriminator/{name}"].append(mean)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        if self.model.training and self.discriminator.num_updates < self.args.discriminator_warmup_steps:
            self._warm_up(generation_batch)
        return super()._prepare_inputs(generation_batch)

    def _warm_up(self, generation_batch: list[dict[str, Any]]) -> None:
        """Train the discriminator alone on completions of the generator as it stands."""
        metrics, self._metrics["train"] = self._metrics["train"], defaultdict(list)
        prompts = None
        if isinstance(self.train_dataset, Dataset):
            prompts = RealSampler(
                len(self.train_dataset),
                self.args.seed + 2,
                self.accelerator.process_index,
                self.accelerator.num_processes,
            )
        self._warming_up = True
        logging_steps = max(int(self.state.logging_steps), 1)
        while (before := self.discriminator.num_updates) < self.args.discriminator_warmup_steps:
            rows = generation_batch
            if prompts is not None:
                rows = [self.train_dataset[index] for index in prompts.draw(len(generation_batch))]
            self._generate_and_score_completions(rows)
            now = self.discriminator.num_updates
            if now // logging_steps > before // logging_steps:
                self.log({"discriminator/warmup_step": now})
        self._warming_up = False
        self._metrics["train"] = metrics

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Make the generator's schedule as always, and the discriminator's optimizer and schedule."""
        per_batch = self.args.steps_per_generation * self.num_iterations
        batches = -(-num_training_steps * self.args.gradient_accumulation_steps // per_batch)
        updates = self.args.discriminator_warmup_steps + batches * self.args.discriminator_steps
        self.discriminator.create_optimizer(self.args.discriminator_arguments(), updates)
        return super().create_scheduler(num_training_steps, optimizer)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        columns = cast("list[str]", self._signature_columns)  # transformers declares the None that it starts as
        if "completion" not in columns:
            columns.append("completion")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        with dtypes_kept(self.model):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._resumed_epoch = int(read_state(resume_from_checkpoint)["epoch"])

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Any:
        # TRL's RepeatSampler draws the order of every epoch from one generator and has no set_epoch, so a run resumed
        # in epoch k would repeat the order of epoch 0. Drawing k orders first puts it right; a sampler with set_epoch
        # would not need it.
        sampler: Any = super()._get_train_sampler(dataset)  # RepeatSampler, which TRL declares as any Sampler
        if self.shuffle_dataset:
            for _ in range(self._resumed_epoch):
                torch.randperm(sampler.num_samples, generator=sampler.generator)
        return sampler

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the generator as always, and the discriminator in `discriminator/` beside it."""
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            self.discriminator.save_pretrained(model_folder(output_dir or self.args.output_dir))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            self.discriminator.save_state(Path(output_dir) / FOLDER)
            write_state(output_dir, self._step, self.state.epoch, self._real_texts.drawn)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        state = read_state(checkpoint)
        # A checkpoint can have been renamed since it was saved, so its name does not say where the model lies.
        folder = Path(checkpoint) / FOLDER
        self.discriminator.load_state(folder, folder / MODEL_FOLDER)
        self._step = state["micro_steps"]
        self._real_texts.drawn = state["real_texts_drawn"]

    # The signature is TRL's, which departs from that of transformers.
    def create_model_card(  # type: ignore[override]
        self, model_name: str | None = None, dataset_name: str | None = None, tags: str | list[str] | None = None
    ) -> None:
        """Write TRL's card with a section on the discriminator."""
        super().create_model_card(model_name, dataset_name, tags)
        if not self.is_world_process_zero():
            return
        logged = [entry for entry in self.state.log_history if "discriminator/value" in entry]
        extend_model_card(
            Path(self.args.output_dir) / "README.md",
            discriminator=self.discriminator,
            loss=self.args.discriminator_loss,
            reward=self.args.discriminator_reward,
            metrics=logged[-1] if logged else {},
            hub_model_id=self.hub_model_id,
            output_dir=self.args.output_dir,
        )
