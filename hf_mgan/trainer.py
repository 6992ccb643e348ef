"""Adversarial training: TRL's GRPO, with a reward that is learnt at the same time.

One generation batch flows so. TRL draws rows, generates completions and asks for their rewards (`_calculate_rewards`).
There completions and real texts are written as plain text in the same way (`data`), run through the discriminator
together, and the logits of the completions are their reward; in training the discriminator then takes its step. TRL
turns the rewards into advantages and moves the generator. Everything else is TRL's.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from datasets import Dataset, IterableDataset
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from transformers.trainer_callback import TrainerCallback
from transformers.trainer_utils import EvalLoopOutput
from trl import GRPOTrainer

from .config import AdversarialConfig
from .data import RealSampler, RealTexts, as_prompts, plain_text, prepare_datasets, start_of_sequence
from .discriminator import prepare_quantised_training
from .evaluation.evaluator import GeneratorEvaluator, check_generator_evaluators
from .metrics.completion_likelihood import log_density_drop
from .objectives import PAIRED
from .safety import GATE, SafetyGate, check_gate, gate_rewards
from .training import preconditions
from .training.build import load_discriminator, load_generator_processing_class, shared_base
from .training.checkpoint import (
    FOLDER,
    LIVE_WEIGHTS_FILE,
    MODEL_FOLDER,
    dtypes_kept,
    model_folder,
    read_state,
    write_state,
)
from .training.further_rewards import as_list, matching
from .training.model_card import PAPER, TAG_NAMES, extend_model_card
from .training.real_text_loss import real_text_batch, real_text_nll, reference_ids
from .training.reward import DiscriminatorTurn, Texts
from .training.update_gating import UpdateGating
from .training.weight_average import WeightAverage
from .watchdog.callback import check_best_model, watched


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
      learns, and the safety gate has its say;
    - `_generate_and_score_completions`: puts the credit of single tokens (`discriminator_credit="token"`) in the place
      of the advantages of whole completions, and the real texts of the batch beside them;
    - `_compute_loss`: adds the generator's cross-entropy on these real texts (`real_text_coef`);
    - `_prepare_inputs`: comes before the first generation, so here the discriminator's warm-up takes place;
    - `create_scheduler`: learns the number of steps, which the discriminator's schedule needs;
    - `_set_signature_columns_if_needed`: keeps the references when unused columns are dropped;
    - `_get_train_sampler`, `_load_from_checkpoint`: a resumed run goes on in the order of its epoch and in the
      precision of its adapters (see there);
    - `save_model`, `_save_optimizer_and_scheduler`, `_load_optimizer_and_scheduler`: save and load the second player;
    - `evaluate`, and `save_model` too: use the average of the generator's weights if there is one;
    - `evaluation_loop`: makes metrics that are not logged yet, so here a [`GeneratorEvaluator`] adds to them;
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
        callbacks (`list[TrainerCallback]`, *optional*): As in [`~trl.GRPOTrainer`]; a [`Watchdog`] is added if there
            is none among them.
        optimizers, quantization_config, peft_config, tools, rollout_func, environment_factory: As in
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
        safety_gate ([`SafetyGate`], `str`, `PreTrainedModel`, `PeftModel` or `Callable`, *optional*): What tells
            unsafe completions, which then rank below every safe one of their group whatever else they earn. Anything
            but a [`SafetyGate`] becomes one with its defaults.

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
        safety_gate: "SafetyGate | str | PreTrainedModel | PeftModel | Callable | None" = None,
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
        preconditions.check_token_credit(
            args,
            tools=tools,
            rollout_func=rollout_func,
            environment_factory=environment_factory,
            safety_gate=safety_gate,
        )
        reward_funcs = as_list(reward_funcs)
        # TRL takes None for a function, and declares that every reward has a processing class.
        all_processing_classes: list = [
            *matching(reward_processing_classes, reward_funcs, "reward processing classes"),
            None,
        ]
        weights = matching(args.reward_weights, reward_funcs, "reward weights")
        check_best_model(args)
        check_generator_evaluators(
            callbacks or [], tools=tools, rollout_func=rollout_func, environment_factory=environment_factory
        )
        if safety_gate is not None:
            check_gate(args)
            safety_gate = safety_gate if isinstance(safety_gate, SafetyGate) else SafetyGate(safety_gate)
            preconditions.check_gate_is_apart(safety_gate.model, discriminator)
            all_processing_classes.append(None)

        if processing_class is None:
            processing_class = load_generator_processing_class(model, args)
        tokenizer = (
            processing_class if isinstance(processing_class, PreTrainedTokenizerBase) else processing_class.tokenizer
        )
        train_dataset, eval_dataset = (
            prepare_datasets(given, tokenizer, **args.prompt_arguments()) for given in (train_dataset, eval_dataset)
        )
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
            reward_funcs=[
                *reward_funcs,
                self._reward_function(FOLDER),
                *([self._reward_function(GATE)] if safety_gate is not None else []),
            ],
            args=trl_args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            reward_processing_classes=all_processing_classes,
            callbacks=watched(callbacks),
            optimizers=optimizers,
            quantization_config=quantization_config,
            peft_config=peft_config,
            tools=tools,
            rollout_func=rollout_func,
            environment_factory=environment_factory,
        )
        # The generator reads real texts as they stand, without images or the tools of an environment.
        self._reads_real_texts = not self._is_vlm and environment_factory is None
        if self.args.real_text_coef and not self._reads_real_texts:
            raise ValueError(
                "real_text_coef is the generator's cross-entropy on plain text, and this generator reads images or "
                "the tools of an environment as well: leave it out, or use beta to hold it near its start."
            )
        prepare_quantised_training(self.model)
        self.args.reward_weights = args.reward_weights
        self.reward_weights[: len(weights)] = torch.tensor([1.0 if weight is None else weight for weight in weights])
        self.reward_weights[len(weights)] = args.discriminator_weight  # that of the safety gate, if any, stays 1
        for name in (FOLDER, GATE):
            if self.reward_func_names.count(name) > (name == FOLDER or safety_gate is not None):
                raise ValueError(f"A reward function is called {name!r}, which names this trainer's own: rename it.")

        self.discriminator = player.to(self.accelerator.device)
        self._safety_gate = safety_gate and safety_gate.to(self.accelerator.device)
        self._real_texts = real_texts
        self._balance = UpdateGating(args.discriminator_accuracy_ceiling, args.discriminator_accuracy_floor)
        self.add_callback(self._balance)
        self._average = WeightAverage(args.ema_decay) if args.ema_decay else None
        if self._average is not None:
            self.add_callback(self._average)
        offsets = self._offsets if args.discriminator_density_offset else None
        self._turn = DiscriminatorTurn(
            self.discriminator, real_texts, self.args, self._balance, self.accelerator, tokenizer, offsets
        )
        self._rewards: list[float | None] = []  # TRL's type of rewards; none of them is None
        self._resumed_epoch = 0
        self._warming_up = False
        self._samples_due: bool | None = None  # None outside of evaluations

    def _reward_function(self, name: str) -> Callable[..., list[float | None]]:
        """Return a reward function for a column that this trainer fills itself; its name is that of the metric."""

        def reward(**_: Any) -> list[float | None]:
            return self._rewards

        reward.__name__ = name
        return reward

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: list, completions: list, completion_ids_list: list
    ) -> Tensor:
        group_size = cast(int, self.num_generations if self.model.training else self.num_generations_eval)
        texts = Texts(inputs, prompts, [plain_text(text) for text in completions], completion_ids_list, group_size)
        updates = self.args.discriminator_steps if self.model.training else 0
        if self._warming_up:
            updates = min(updates, self.args.discriminator_warmup_steps - self.discriminator.num_updates)
        rewards, figures = self._turn.play(texts, updates, self._warming_up)
        self._rewards = rewards.tolist()
        self._log_figures(figures)
        if self._warming_up:
            # The generator does not learn from this batch, so the user's rewards, which may cost money, are not asked.
            shape = len(prompts) * self.accelerator.num_processes, len(self.reward_funcs)
            return torch.zeros(shape, device=self.accelerator.device)
        rewards_per_func = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self._safety_gate is not None:
            self._pass_through(self._safety_gate, rewards_per_func, texts)
        return rewards_per_func

    def _pass_through(self, gate: SafetyGate, rewards_per_func: Tensor, texts: Texts) -> None:
        """Put each unsafe completion below every safe one of its group; rewards of shape (B, K), all processes'."""
        unsafe = gate.is_unsafe(as_prompts(texts.prompts, self._tokenizer), texts.completions)
        unsafe = self.accelerator.gather(unsafe.to(self.accelerator.device))
        self._log_figures({"safety/unsafe_rate": unsafe.float().mean().item()})
        column = self.reward_func_names.index(GATE)  # behind it TRL puts the rewards of environments
        others = [index for index in range(len(self.reward_funcs)) if index != column]
        weights = self.reward_weights[others].to(rewards_per_func.device)
        gated = gate_rewards(rewards_per_func[:, others], weights, unsafe, texts.group_size, gate.margin)
        rewards_per_func[:, [*others, column]] = gated

    def _log_figures(self, figures: dict[str, float]) -> None:
        """Add figures of a batch to TRL's metrics."""
        mode = "train" if self.model.training else "eval"
        for name, value in figures.items():
            if value == value:  # a discriminator that rests, or is evaluated, has no gradient and no learning rate
                self._metrics[mode][name].append(value)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        if self.args.discriminator_credit == "token" and self.model.training and not self._warming_up:
            output["advantages"] = self._turn.advantages_of_tokens(output["advantages"], output["completion_mask"])
        if self._reads_real_texts and (self.args.real_text_coef or not self.model.training):
            start = start_of_sequence(self._tokenizer)  # what a real text without a prompt begins with
            prompts = [prompt or start for prompt in self._turn.reference_prompts]
            texts = reference_ids(self._turn.references, self._tokenizer, self.max_completion_length)
            batch = real_text_batch(self._tokenize_prompts(prompts)[0], texts)
            output |= {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}
        return output

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        loss = super()._compute_loss(model, inputs)
        if "real_ids" not in inputs:
            return loss
        nll = real_text_nll(model, inputs)
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["generator/real_nll"].append(self.accelerator.gather(nll.detach()).mean().item())
        accumulated = self.current_gradient_accumulation_steps if self.model.training else 1
        return loss + self.args.real_text_coef * nll / accumulated

    def _offsets(self, prompts: list, completions: list) -> Tensor:
        """Return by how much the generator finds texts less likely than at first: tokens, or texts of references."""
        if isinstance(completions[0], str):
            completions = reference_ids(completions, self._tokenizer, self.max_completion_length)
        return log_density_drop(
            self.accelerator.unwrap_model(self.model),
            self._tokenize_prompts(prompts)[0],
            completions,
            self.temperature,
            self.args.per_device_train_batch_size,
        )

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        if self.model.training and self._step == 0:
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
        target = self.args.discriminator_warmup_accuracy or math.inf
        while (before := self.discriminator.num_updates) < self.args.discriminator_warmup_steps:
            rows = generation_batch
            if prompts is not None:
                rows = [self.train_dataset[index] for index in prompts.draw(len(generation_batch))]
            self._generate_and_score_completions(rows)
            now = self.discriminator.num_updates
            reached = (self._balance.accuracy or 0) >= target
            if now // logging_steps > before // logging_steps or reached:
                self.log({"discriminator/warmup_step": now})
            if reached:
                break
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
        if self._average is not None:
            live = torch.load(
                Path(resume_from_checkpoint) / FOLDER / LIVE_WEIGHTS_FILE,
                map_location=self.accelerator.device,
                weights_only=True,
            )
            self._average.resume(self.model, live)

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
        with self._averaged():
            super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            self.discriminator.save_pretrained(model_folder(output_dir or self.args.output_dir))

    def _averaged(self) -> AbstractContextManager[None]:
        """Return a context in which the generator has its average weights, if it keeps an average."""
        return nullcontext() if self._average is None else self._average.applied(self.model)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate as always: the average of the generator's weights if there is one (`ema_decay`)."""
        if self._samples_due is not None:  # one of several sets: transformers calls this method again for each
            return super().evaluate(*args, **kwargs)
        self._samples_due = True
        try:
            with self._averaged():
                return super().evaluate(*args, **kwargs)
        finally:
            self._samples_due = None

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Evaluate a set as always, and once an evaluation the samples of a [`GeneratorEvaluator`], if any."""
        output = super().evaluation_loop(*args, **kwargs)
        for callback in self.callback_handler.callbacks:
            if self._samples_due and isinstance(callback, GeneratorEvaluator):
                self._samples_due = False
                cast("dict[str, float]", output.metrics).update(callback.measure(self, self._safety_gate))
        return output

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        folder = Path(output_dir) / FOLDER
        if self.args.should_save:
            self.discriminator.save_state(folder)
            write_state(output_dir, self._step, self.state.epoch, self._real_texts.drawn, self._balance.accuracy)
            if self._average is not None:
                torch.save(self._average.live_weights(self.model), folder / LIVE_WEIGHTS_FILE)
        self.discriminator.save_replay(folder, self.accelerator.process_index)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        state = read_state(checkpoint)
        # A checkpoint can have been renamed since it was saved, so its name does not say where the model lies.
        folder = Path(checkpoint) / FOLDER
        self.discriminator.load_state(folder, folder / MODEL_FOLDER)
        self.discriminator.load_replay(folder, self.accelerator.process_index)
        self._step = state["micro_steps"]
        self._real_texts.drawn = state["real_texts_drawn"]
        self._balance.accuracy = state["discriminator_accuracy"]

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
