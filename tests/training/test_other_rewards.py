"""A discriminator beside what TRL pays by itself: several rewards, async ones, environments, rollouts of one's own."""

import math

import pytest
import torch
from datasets import Dataset
from transformers import GPT2Config, GPT2LMHeadModel
from trl.chat_template_utils import qwen3_chat_template

from hf_mgan import AdversarialTrainer

from ..kinds_of_tokenizers import qwen


def counts_dogs(completions, **_):
    return [float(text.split().count("dog")) for text in completions]


async def is_short(completions, **_):
    return [float(len(text.split()) < 5) for text in completions]


class Recording(AdversarialTrainer):
    """Keeps the rewards of every batch, as TRL gets them and as it adds them."""

    def _calculate_rewards(self, *arguments):
        rewards = super()._calculate_rewards(*arguments)
        self.seen = [*getattr(self, "seen", []), rewards]
        return rewards


def logged(trainer):
    return [entry for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("scale_rewards", ["group", "batch", "none"])
def test_several_rewards_are_added_with_the_discriminators(make_trainer, make_config, scale_rewards):
    """Two of the user's, one of them async, and the discriminator's last, each with its weight."""
    config = make_config(
        max_steps=2, scale_rewards=scale_rewards, reward_weights=[0.5, 2.0], discriminator_weight=0.25
    )
    trainer = make_trainer(config, trainer_class=Recording, reward_funcs=[counts_dogs, is_short])
    trainer.train()
    for entry, rewards in zip(logged(trainer), trainer.seen, strict=True):
        for name, column in zip(("counts_dogs", "is_short", "discriminator"), rewards.T, strict=True):
            assert entry[f"rewards/{name}/mean"] == pytest.approx(column.mean().item(), abs=1e-5)
        total = rewards @ torch.tensor([0.5, 2.0, 0.25])
        assert entry["reward"] == pytest.approx(total.mean().item(), abs=1e-5)
        assert entry["rewards/discriminator/std"] > 0


def test_a_reward_that_does_not_apply_is_left_out(make_trainer, make_config):
    """TRL's None: the completion is paid by the others, the discriminator among them."""

    def first_two(completions, **_):
        return [1.0, 1.0, *[None] * (len(completions) - 2)]

    trainer = make_trainer(make_config(max_steps=1), trainer_class=Recording, reward_funcs=first_two)
    trainer.train()
    (rewards,) = trainer.seen
    assert rewards[:, 0].isnan().tolist() == [False, False, True, True]
    assert rewards[:, 1].isfinite().all()
    (entry,) = logged(trainer)
    assert entry["rewards/first_two/mean"] == 1
    assert entry["reward"] == pytest.approx(rewards.nansum(1).mean().item(), abs=1e-5)


def test_a_rollout_of_ones_own_is_rewarded_and_learnt_from(make_trainer, make_config, tokenizer):
    """The discriminator reads what the rollout wrote; tokens that it did not write are no part of the loss."""
    shown = []

    def rollout(prompts, trainer):
        rows = [[9, 10 + number % 3, 11, 2] for number in range(len(prompts))]
        return {
            "prompt_ids": [[1] for _ in prompts],
            "completion_ids": rows,
            "logprobs": None,
            "env_mask": [[1, 0, 1, 1] for _ in prompts],
        }

    trainer = make_trainer(make_config(max_steps=2), rollout_func=rollout, trainer_class=Recording)
    update = trainer.discriminator.update

    def recorded(prompts, completions, *arguments, **options):
        shown.append(completions)
        return update(prompts, completions, *arguments, **options)

    trainer.discriminator.update = recorded
    before = [parameter.clone() for parameter in trainer.model.parameters()]
    trainer.train()
    assert set(shown[0]) == {tokenizer.decode([9, 10 + number, 11]) for number in range(3)}
    assert all(math.isfinite(entry["loss"]) for entry in logged(trainer))
    assert any((old != new).any() for old, new in zip(before, trainer.model.parameters(), strict=True))


class Counting:
    """An environment that pays by itself, and offers a tool."""

    def reset(self, **_):
        return None

    def look(self, place: str) -> str:
        """
        Look somewhere.

        Args:
            place: Where.
        """
        return f"nothing at {place}"

    def get_reward(self):
        return 0.5


CALL = '<tool_call>\n{"name": "look", "arguments": {"place": "home"}}\n</tool_call>'


@pytest.mark.parametrize("way", ["tools", "environment_factory"])
def test_tools_and_environments_with_a_discriminator(make_trainer, make_config, way):
    """First the tool is called, then comes the answer, which the discriminator reads."""
    tokenizer = qwen()
    tokenizer.chat_template = qwen3_chat_template
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=1024))
    turns, shown = iter([CALL, "it is not there"]), []

    class Scripted(Recording):
        def _generate_single_turn(self, prompt_ids, *_, **__):
            text = next(turns) + "<|im_end|>"
            return [tokenizer(text)["input_ids"] for _ in prompt_ids], None

    rows = [[{"role": "user", "content": "where?"}, {"role": "assistant", "content": "here"}]] * 8
    given = {"tools": [Counting().look]} if way == "tools" else {"environment_factory": Counting}
    trainer = make_trainer(
        make_config(max_steps=1, max_completion_length=400),
        trainer_class=Scripted,
        model=model,
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"messages": rows}),
        **given,
    )
    update = trainer.discriminator.update

    def recorded(prompts, completions, *arguments, **options):
        shown.extend(completions)
        return update(prompts, completions, *arguments, **options)

    trainer.discriminator.update = recorded
    trainer.train()
    assert shown == ["it is not there"] * 4
    (rewards,) = trainer.seen
    assert rewards.size(1) == 1 + (way == "environment_factory")  # which pays by itself
    assert rewards[:, 0].isfinite().all()
    assert (rewards[:, 1:] == 0.5).all()
    (entry,) = logged(trainer)
    assert entry["tools/call_frequency"] == 1


def test_the_two_lines_of_a_script_with_a_reward(make_trainer, make_config, dataset):
    """The reward of a GRPO script stays, and the discriminator stands beside it, watching alone with weight 0."""
    rewarded = dataset.filter(lambda row: "dog" in row["text"])
    assert 0 < len(rewarded) < len(dataset)
    for weight in (1.0, 0.0):
        trainer = make_trainer(
            make_config(max_steps=1, discriminator_weight=weight),
            trainer_class=Recording,
            reward_funcs=counts_dogs,
            train_dataset=Dataset.from_dict({"prompt": ["the"] * 8}),
            real_dataset=rewarded,
        )
        trainer.train()
        (entry,), (rewards,) = logged(trainer), trainer.seen
        assert entry["reward"] == pytest.approx((rewards[:, 0] + weight * rewards[:, 1]).mean().item(), abs=1e-5)
        assert entry["discriminator/accuracy"] >= 0
