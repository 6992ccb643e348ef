"""Adversarial training: TRL's GRPO, with a reward that is learnt at the same time.

One generation batch flows so. TRL draws rows, generates completions and asks for their rewards. The discriminator's
reward (`training/reward`) writes completions and real texts as plain text in the same way, runs them through the
discriminator together, takes the reward from the logits of the completions, and updates the discriminator. TRL turns
the rewards into advantages and updates the generator. This module is wiring: everything else is TRL's.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from datasets import Dataset, IterableDataset
from huggingface_hub import ModelCard
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_callback import TrainerCallback
from transformers.trainer_utils import EvalLoopOutput

from .config import AdversarialConfig
from .data.prompts import without_added_end
from .discriminator import Calibration, Discriminator, prepare_quantised_training
from .discriminator.card import discriminator_card
from .discriminator.discriminator import TRAINING_STATE_FILE
from .models import check_saved_weights, save_quantisation
from .training.build import build, check_reward_names
from .training.checkpoint import FOLDER, MODEL_FOLDER, AdversarialState, dtypes_kept, model_folder, naming
from .training.final_updates import FinalUpdates, fit_discriminator
from .training.finite import check_finite, check_optimizer_finite, check_rewards_finite
from .training.generation import end_completions, generate_without_cache, unwrapped_generator
from .training.model_card import CARD_FILE, PAPER, TAG_NAMES, may_be_replaced, model_card
from .training.positions import count_positions_by_mask
from .training.pushing import PushingTrainer
from .training.real_text_loss import NLL, TOKENS, num_real_tokens, real_text_batch, real_text_nll, weighted_by_tokens
from .training.resuming import check_state_fits, compared_settings
from .training.reward import NAME, REFERENCE, Round
from .training.run_facts import run_facts
from .training.update_gating import SkippedUpdates
from .training.warm_up import warm_up


if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import BitsAndBytesConfig, ProcessorMixin

    from .evaluation.evaluator import GeneratorEvaluator
    from .safety import SafetyGate


class AdversarialTrainer(PushingTrainer):
    """Trainer for generative adversarial fine-tuning of a language model.

    The generator is any causal language model; the discriminator is any sequence classifier, trained at the same time
    to tell its completions from real text:

    min_G max_D V(D, G) = E_t[log D(t)] + E_s[log(1 - D(G(s)))]

    (Goodfellow et al. 2014, [1406.2661](https://huggingface.co/papers/1406.2661)). The generator descends by policy
    gradient, since text is discrete (SeqGAN, [1609.05473](https://huggingface.co/papers/1609.05473)), here that of
    [`~trl.GRPOTrainer`], from which everything is inherited that is not overridden below, in the order in which TRL
    and transformers call it. Every override calls `super()`; in the warm-up `_calculate_rewards` does not.

    Args:
        model (`str`, `PreTrainedModel` or `PeftModel`): The generator, as in [`~trl.GRPOTrainer`], or saved adapters.
        reward_funcs (*optional*): *Further* rewards beside the discriminator's, as in [`~trl.GRPOTrainer`];
            `reward_weights` and `reward_processing_classes` belong to them.
        args ([`AdversarialConfig`], *optional*): Settings; the defaults with `output_dir` `<model>-GAN` if missing.
        train_dataset (`Dataset` or `IterableDataset`): Rows with `text`, `prompt` and `completion`, `messages` or
            `translation`; see [`prepare_dataset`].
        eval_dataset (*optional*): The same, one set or a dict of sets.
        callbacks (`list[TrainerCallback]`, *optional*): As in [`~trl.GRPOTrainer`]; a [`Watchdog`] is added if there
            is none among them.
        processing_class, reward_processing_classes, optimizers: As in [`~trl.GRPOTrainer`]; of the generator.
        quantization_config, peft_config: As in [`~trl.GRPOTrainer`]; of the generator.
        tools, rollout_func, environment_factory: As in [`~trl.GRPOTrainer`].
        discriminator (`str`, `PreTrainedModel` or `PeftModel`): The discriminator: Hub id or folder of a classifier or
            of any model that can carry a classification head, or a sequence classifier. Or the very object that is
            `model`: both models then share one base, see [`~discriminator.shared_base.classifier_on`].
        discriminator_processing_class (`PreTrainedTokenizerBase`, *optional*): Its tokenizer; loaded with it by
            default.
        discriminator_peft_config (`PeftConfig`, *optional*): Adapters to train in place of the whole discriminator.
        discriminator_quantization_config (`BitsAndBytesConfig`, *optional*): Its quantisation; needs adapters.
        real_dataset (`Dataset`, *optional*): Real texts (column `text`) that belong to no prompt, in place of the
            references. The discriminator then sees completions without their prompts.
        safety_gate ([`SafetyGate`], `str`, `PreTrainedModel`, `PeftModel` or `Callable`, *optional*): What tells
            unsafe completions, which then rank below every safe one of their group whatever else they earn. Anything
            but a [`SafetyGate`] becomes one with its defaults.
        evaluator ([`GeneratorEvaluator`], *optional*): Draws samples of the generator at every evaluation; its metrics
            stand among those of the evaluation.

    Raises:
        TypeError: If `args` or a model is of the wrong type.
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
        evaluator: "GeneratorEvaluator | None" = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        parts = build(given, is_training=lambda: self.model.training)
        self._repo_id = parts.repo_id
        self.dataset_name: str | list[str] | None = None
        super().__init__(**parts.for_trl)
        self.args.reward_weights = parts.reward_weights  # TRL has read those of all rewards
        check_reward_names(self.reward_func_names, parts.safety)
        prepare_quantised_training(self.model)
        generate_without_cache(self)
        count_positions_by_mask(self.model)
        count_positions_by_mask(self.ref_model)
        self.discriminator = parts.reward.discriminator.to(self.accelerator.device)
        self.evaluator, self._reward, self._safety = evaluator, parts.reward, parts.safety
        self._real_dataset = real_dataset
        self._reads_real_texts = parts.reads_real_texts
        if self._safety is not None:
            self._safety.gate.to(self.accelerator.device)
        if (gating := self._reward.gating) is not None:
            self.add_callback(SkippedUpdates(lambda: gating.generator_skips(self._reward.round.accuracy)))
        if self.args.discriminator_final_steps:
            self.add_callback(FinalUpdates(self.fit_discriminator, self.log))
        self._resumed: AdversarialState | None = None  # the checkpoint that the run goes on from
        self._resumed_from: str | None = None
        self._warmup_prompts_drawn = 0
        self._end_where_texts_end()

    def _end_where_texts_end(self) -> None:
        """Let completions end, and real texts, at the end tokens of both the generator and its chat template.

        TRL takes those of the generator's config and of the tokenizer, and an answer may end in another one.
        """
        real_texts = self._reward.real_texts
        end_completions(self, real_texts.path.ends)
        real_texts.path = replace(real_texts.path, end_ids=frozenset(self.eos_token_ids))

    def _set_signature_columns_if_needed(self) -> None:
        """Keep the references when unused columns are dropped."""
        super()._set_signature_columns_if_needed()
        columns = cast("list[str]", self._signature_columns)  # transformers declares the None that it starts as
        if "completion" not in columns:
            columns.append("completion")

    def _start_from(self, checkpoint: str | None) -> None:
        """Compare a checkpoint with this run, in weights, settings, processes and data."""
        self._resumed, self._resumed_from, self._warmup_prompts_drawn = None, checkpoint, 0
        if checkpoint is None:
            return super()._start_from(checkpoint)
        state = AdversarialState.load(checkpoint)
        super()._start_from(checkpoint)
        processes, rows = self.accelerator.num_processes, self._num_rows()
        self._takes_progress = check_state_fits(checkpoint, state, self.args, processes, rows)
        if not self.is_deepspeed_enabled and not self.is_fsdp_enabled:
            check_saved_weights("generator", self.accelerator.unwrap_model(self.model), checkpoint)
        self._resumed = state

    def _num_rows(self) -> int | None:
        return len(self.train_dataset) if isinstance(self.train_dataset, Dataset) else None

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Any:
        """Let a resumed run go on in the order of its epoch.

        TRL's RepeatSampler draws the order of every epoch from one generator and has no set_epoch, so a run resumed in
        epoch k would repeat the order of epoch 0. Drawing k orders first puts it right; a sampler with set_epoch would
        not need it.
        """
        sampler: Any = super()._get_train_sampler(dataset)  # RepeatSampler, which TRL declares as any Sampler
        if self.shuffle_dataset:
            for _ in range(int(self._resumed.epoch) if self._resumed is not None else 0):
                torch.randperm(sampler.num_samples, generator=sampler.generator)
        return sampler

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Make the generator's schedule as always, and the discriminator's optimizer and schedule."""
        per_batch = self.args.steps_per_generation * self.num_iterations
        batches = -(-num_training_steps * self.args.gradient_accumulation_steps // per_batch)
        updates = self.args.discriminator_warmup_steps + batches * self.args.discriminator_steps
        self.discriminator.create_optimizer(self.args.discriminator_training_args(), updates)
        return super().create_scheduler(num_training_steps, optimizer)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load the states of both models."""
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None or self._resumed is None:
            return
        state, folder = self._resumed, Path(checkpoint) / FOLDER
        with naming(folder, TRAINING_STATE_FILE):
            # A checkpoint can have been renamed since it was saved, so its name does not say where the model lies.
            self.discriminator.load_state(folder, folder / MODEL_FOLDER)
        with naming(folder, "replay_<rank>.json"):
            self.discriminator.replay.load(folder, self.accelerator.process_index, state.num_processes)
        self._step = state.micro_steps
        if not self._takes_progress:  # batches may be of another size
            self._step = state.global_step * self.args.gradient_accumulation_steps
        self._warmup_prompts_drawn = state.warmup_prompts_drawn
        self._reward.real_texts.drawn = state.real_texts_drawn
        self._reward.round = Round(accuracy=state.discriminator_accuracy)

    def _tokenize_prompts(self, prompts: list) -> Any:
        """Leave out what a tokenizer puts behind every text, such as an end token: a prompt goes on."""
        prompt_ids, *others = super()._tokenize_prompts(prompts)
        if isinstance(prompts[0], str):
            prompt_ids = without_added_end(prompt_ids, self._tokenizer)
        return prompt_ids, *others

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """Train the discriminator alone before the first generation."""
        is_first = self.model.training and self._step == 0
        if is_first and self._resumed_from is not None:
            self._load_rng_state(self._resumed_from)  # transformers has made a data loader since, which draws
        if self._reward.is_warming_up:
            warm_up(self, generation_batch, saves=is_first)
        if is_first:
            self._metrics["train"].clear()  # those of the warm-up; nothing precedes it
        return super()._prepare_inputs(generation_batch)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Put the real texts of the round beside its completions, where the generator reads them."""
        output = super()._generate_and_score_completions(inputs)
        real = self._reward.round.real
        if real is not None and self._reads_real_texts and (self.args.real_text_coef or not self.model.training):
            batch = real_text_batch(real.prompt_ids, real.completion_ids)
            output |= {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}
            # A number of the whole generation batch, which stays with each part of it, as `num_items_in_batch` does.
            output["num_real_tokens"] = self.accelerator.gather(num_real_tokens(output)).sum()
        return output

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: list, completions: list, completion_ids_list: list
    ) -> Tensor:
        """Hand the references to the discriminator's reward, and let the safety gate rank what came of all rewards."""
        if "completion" in inputs[0]:
            inputs = [{**row, REFERENCE: row["completion"]} for row in inputs]
        if self._reward.is_warming_up:
            # The generator does not learn from this batch, so the user's rewards, which may cost money, are not asked.
            references: dict[str, Any] = {}
            if REFERENCE in inputs[0]:
                references[REFERENCE] = [row[REFERENCE] for row in inputs]
            logs = self._log_metric, self._log_completion_extra
            self._reward(prompts, completions, completion_ids_list, *logs, **references)
            shape = len(prompts) * self.accelerator.num_processes, len(self.reward_funcs)
            return torch.zeros(shape, device=self.accelerator.device)
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self.model.training:
            check_rewards_finite(rewards, self.reward_func_names, NAME)
        if self._safety is None:
            return rewards
        group_size = cast(int, self.num_generations if self.model.training else self.num_generations_eval)
        return self._safety.rank(rewards, self.reward_func_names, self.reward_weights, group_size)

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        """Add the generator's cross-entropy on the real texts (`real_text_coef`), and measure it in evaluation.

        It is a mean over the tokens of all micro-batches and processes of a step, as TRL's loss "dapo" is.
        """
        loss = super()._compute_loss(model, inputs)
        if "real_ids" not in inputs:
            return loss
        nll, metrics = real_text_nll(model, inputs), self._metrics["train" if self.model.training else "eval"]
        own = torch.stack([nll.detach(), num_real_tokens(inputs).to(nll)])
        for name, total in zip((NLL, TOKENS), self.accelerator.reduce(own, reduction="sum").tolist(), strict=True):
            metrics[name].append(total)
        # Gradients are averaged over processes, and a step takes so many of the parts of the generation batch.
        tokens = inputs["num_real_tokens"].clamp(min=1) / self.accelerator.num_processes
        if self.model.training:
            tokens = tokens * self.current_gradient_accumulation_steps / self.args.steps_per_generation
        return loss + self.args.real_text_coef * nll / tokens

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the likelihood of real texts as a mean over tokens; TRL averages over micro-batches."""
        weighted_by_tokens(self._metrics["train" if self.model.training else "eval"])
        super().log(logs, start_time)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Evaluate a set as always; beside the first one the evaluator draws samples of the generator."""
        output = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        names = [f"eval_{name}" for name in self.eval_dataset] if isinstance(self.eval_dataset, dict) else []
        if self.evaluator is None or prefix in names[1:] or kwargs.get("description") == "Prediction":
            return output
        with unwrapped_generator(self) as generator:
            measured = self.evaluator(generator)
        prefix = "eval" if prefix in names else prefix
        cast("dict[str, float]", output.metrics).update({f"{prefix}_{name}": measured[name] for name in measured})
        return output

    def fit_discriminator(self, num_updates: int, previous: Discriminator | None = None) -> Calibration:
        """Train the discriminator against the generator as it stands, and calibrate it, to guide generation.

        See [`~training.final_updates.fit_discriminator`], also for a `previous` discriminator. Without `train` before
        it, the generator is never trained.
        """
        data = cast(Dataset, self.train_dataset), cast(Dataset, self.eval_dataset)
        with unwrapped_generator(self) as generator:
            given = generator, self._tokenizer, self.discriminator, *data, self.args, num_updates, self._real_dataset
            return fit_discriminator(*given, previous=previous)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the generator as always, and the discriminator in `discriminator/` beside it.

        Every checkpoint begins here, before older ones are removed.
        """
        check_finite("generator", self.model)
        check_finite("discriminator", self.discriminator.model)
        if not self._is_aside:
            self._finish_current_push()  # which reads what is about to be written
        folder = output_dir or self.args.output_dir
        card = Path(folder) / CARD_FILE
        writes_card = self.args.should_save and may_be_replaced(card)
        super().save_model(output_dir, _internal_call=True)  # all is saved before anything is pushed
        if self.args.should_save:
            save_quantisation(self.model, folder)
            self.discriminator.save_pretrained(model_folder(folder), self.hub_model_id)
        if writes_card:  # in place of the blank one of PEFT
            card.write_text(model_card(run_facts(self), datasets=self.dataset_name), "utf-8")
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub("Model save")

    # The signature is TRL's, which departs from that of transformers.
    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Save the states of both models."""
        if self.discriminator.optimizer is not None:
            check_optimizer_finite("discriminator", self.discriminator.optimizer)
        super()._save_optimizer_and_scheduler(output_dir)
        folder = Path(output_dir) / FOLDER
        if self.args.should_save:
            self.discriminator.save_state(folder)
            AdversarialState(
                global_step=self.state.global_step,
                micro_steps=self._step,
                epoch=self.state.epoch or 0,
                real_texts_drawn=self._reward.real_texts.drawn,
                warmup_prompts_drawn=self._warmup_prompts_drawn,
                discriminator_accuracy=self._reward.round.accuracy,
                num_processes=self.accelerator.num_processes,
                num_rows=self._num_rows(),
                settings=compared_settings(self.args),
            ).save(output_dir)
        self.discriminator.replay.save(folder, self.accelerator.process_index)

    def _load_best_model(self) -> None:
        """Load the discriminator of the best checkpoint with its generator."""
        with dtypes_kept(self.model):
            super()._load_best_model()
        self._last_loaded_step = -1  # vLLM's weights are those of the last step, which TRL takes for the current ones
        best = Path(cast(str, self.state.best_model_checkpoint)) / FOLDER / MODEL_FOLDER
        self.discriminator.load_weights(best)

    def create_model_card(  # type: ignore[override]
        self, model_name: str | None = None, dataset_name: str | None = None, tags: str | list[str] | None = None
    ) -> None:
        """Write the card of both models, and that of the discriminator where it is saved.

        Args:
            model_name (`str`, *optional*): What the model is called; by default as its repository or folder.
            dataset_name (`str` or `list[str]`, *optional*): What the data are called; `dataset_name` of the trainer by
                default. Ids of the Hub become metadata.
            tags (`str` or `list[str]`, *optional*): Further tags.
        """
        super().create_model_card(model_name, dataset_name, tags)
        if not self.is_world_process_zero():
            return
        self.dataset_name = dataset_name or self.dataset_name
        path = Path(self.args.output_dir) / CARD_FILE
        of_trl = ModelCard.load(path)  # has the tags and the badges of trackers
        own_tags = sorted(of_trl.data.tags or [])
        path.write_text(model_card(run_facts(self), model_name, self.dataset_name, own_tags, of_trl.text), "utf-8")
        if (of_discriminator := model_folder(self.args.output_dir) / CARD_FILE).exists():
            of_discriminator.write_text(discriminator_card(self.discriminator, self.hub_model_id), "utf-8")
