import copy

import pytest
import torch
from peft import LoraConfig
from torch.testing import assert_close
from transformers import PreTrainedTokenizerFast

from hf_mgan.discriminator import Discriminator
from hf_mgan.experimental.token_credit import TokenCreditConfig, TokenCreditTrainer
from hf_mgan.objectives import REWARDS

from ..conftest import bert_classifier, causal_classifier, word_tokenizer
from ..test_trainer import moved, weights


SETTINGS = {"scale_rewards": "none", "loss_type": "dr_grpo"}


@pytest.fixture
def causal_tokenizer():
    """A discriminator's that adds nothing by itself, as GPT-2's; the end token is its own."""
    return PreTrainedTokenizerFast(
        tokenizer_object=word_tokenizer(), eos_token="</s>", pad_token="<pad>", unk_token="<unk>", model_max_length=48
    )


@pytest.fixture
def make_credit_config(make_config):
    return lambda **changes: make_config(TokenCreditConfig, **{**SETTINGS, **changes})


@pytest.fixture
def make_credit_trainer(make_trainer, make_credit_config, causal_tokenizer, generator):
    arguments = ("reward_funcs", "peft_config", "discriminator", "tools", "rollout_func", "environment_factory")

    def make(**changes):
        others = {key: changes.pop(key) for key in (*arguments, "safety_gate") if key in changes}
        return make_trainer(
            make_credit_config(**changes),
            TokenCreditTrainer,
            **{
                "model": copy.deepcopy(generator),
                "discriminator": causal_classifier(),
                "discriminator_processing_class": causal_tokenizer,
                **others,
            },
        )

    return make


def captured(trainer):
    """Train, and return the batches as the generator's loss gets them."""
    batches = []
    compute = trainer._compute_loss

    def watched(model, inputs):
        batches.append({name: value.clone() for name, value in inputs.items() if isinstance(value, torch.Tensor)})
        return compute(model, inputs)

    trainer._compute_loss = watched
    trainer.train()
    return batches


def test_trainer_gives_each_token_its_own_advantage(make_credit_trainer):
    trainer = make_credit_trainer(peft_config=LoraConfig(r=2, target_modules=["c_attn"]))
    generator, discriminator = weights(trainer.model), weights(trainer.discriminator.model)
    batches = captured(trainer)
    assert moved(generator, trainer.model)
    assert len(moved(discriminator, trainer.discriminator.model)) == len(discriminator)
    for batch in batches:
        assert batch["advantages"].shape == batch["completion_mask"].shape
        assert (batch["advantages"][batch["completion_mask"] == 0] == 0).all()
    first = batches[0]["advantages"]
    assert (first.std(1) > 1e-3).any()


def test_first_advantage_is_that_of_the_whole(make_credit_trainer):
    """At discount 1 and without the baseline's share the first token's return is R(v_T) - R(0).

    The baseline is the mean of the others at the same place, so the first advantage is
    n/(n-1) times the deviation of the sequence's reward from the mean of all n = 4.
    """
    trainer = make_credit_trainer(max_steps=1)
    (batch,) = captured(trainer)
    rewards = torch.nn.functional.softplus(trainer._reward.round.output.fake_logits)
    expected = (rewards - rewards.mean()) * 4 / 3
    # TRL shuffles the batch, so both are compared in order of size.
    assert_close(batch["advantages"][:, 0].sort().values, expected.sort().values, rtol=1e-4, atol=1e-6)


def test_further_rewards_reach_every_token(make_credit_trainer):
    """The further reward is 10 for one completion and 0 for three: less the mean, 7.5 and -2.5 on each token."""

    def favourite(completions, **kwargs):
        return [10.0, *[0.0] * (len(completions) - 1)]

    plain, added = (captured(make_credit_trainer(max_steps=1, reward_funcs=given)) for given in (None, favourite))
    difference = added[0]["advantages"] - plain[0]["advantages"]
    mask = plain[0]["completion_mask"].bool()
    per_row = [row[keep] for row, keep in zip(difference, mask, strict=True)]
    assert all(torch.allclose(row, row[:1].expand_as(row), atol=1e-5) for row in per_row)
    assert_close(torch.stack([row[0] for row in per_row]).sort().values, torch.tensor([-2.5, -2.5, -2.5, 7.5]))


def test_discriminator_weight_scales_the_credit(make_credit_trainer):
    one, three = (captured(make_credit_trainer(max_steps=1, discriminator_weight=w)) for w in (1.0, 3.0))
    assert_close(three[0]["advantages"], 3 * one[0]["advantages"], rtol=1e-4, atol=1e-5)


def test_loss_is_that_of_all_prefixes(causal_tokenizer):
    discriminator = Discriminator(causal_classifier(), causal_tokenizer, prefixes=True)
    prompts, fakes, reals = ["", ""], ["a dog", "the cat sees"], ["a king runs .", "one"]
    out = discriminator.evaluate(prompts, fakes, reals)
    logits, ends = out.fake_prefix_logits, out.fake_prefix_ends
    assert logits.shape == ends.shape == (2, 5)  # the longest text has four words and an end
    assert ends.tolist() == [[1, 5, 6, 6, 6], [3, 7, 12, 13, 13]]
    assert_close(out.fake_logits, logits[:, -1])
    assert_close(discriminator.score(prompts, fakes), logits[:, -1])
    swapped = discriminator.evaluate(prompts, reals, fakes).fake_prefix_logits
    expected = torch.nn.functional.softplus(-swapped).mean() + torch.nn.functional.softplus(logits).mean()
    assert_close(out.loss, expected)


def test_batch_size_gives_the_same_update(causal_tokenizer, make_config):
    states = []
    for batch_size in (None, 2):
        discriminator = Discriminator(causal_classifier(), causal_tokenizer, prefixes=True, batch_size=batch_size)
        # Adam would make a full step of a gradient that is 0 but for rounding.
        discriminator.create_optimizer(
            make_config(discriminator_optim_kwargs={"optim": "sgd"}).discriminator_training_args(), 3
        )
        discriminator.update(["", "", ""], ["a dog", "the cat sees", "one"], ["a king runs .", "two", "a"])
        states.append(weights(discriminator.model))
    for name, value in states[0].items():
        assert_close(states[1][name], value, rtol=1e-4, atol=1e-6)


def test_replay_and_token_dropout_go_with_prefixes(make_credit_trainer):
    trainer = make_credit_trainer(
        discriminator_replay_fraction=0.5, discriminator_regularization={"token_dropout": 0.2}
    )
    trainer.train()
    assert "discriminator/replayed_prob" in trainer.state.log_history[-2]


@pytest.mark.slow  # the gradient is that of the rewards: test_token_credit enumerates it
def test_generator_learns_a_rewarded_word(make_credit_trainer, tokenizer):
    """The head of a causal classifier is rigged to like 'dog' and to forget nothing; it does not learn."""
    classifier = causal_classifier()
    dog = tokenizer.convert_tokens_to_ids("dog")
    with torch.no_grad():
        classifier.transformer.wte.weight.zero_()
        classifier.transformer.wpe.weight.zero_()
        classifier.transformer.wte.weight[dog, 0] = 3.0
        for name, parameter in classifier.transformer.h[0].named_parameters():
            if "attn.c_attn.weight" in name:
                parameter.zero_()
                parameter[:, 32:] = torch.eye(16)  # values are the states; queries and keys are 0: a plain mean
            elif "attn.c_proj.weight" in name:
                parameter.copy_(torch.eye(16))
            elif "mlp" in name or "bias" in name:
                parameter.zero_()
        classifier.score.weight.zero_()
        classifier.score.weight[0, 0] = 2.0
    trainer = make_credit_trainer(
        discriminator=classifier,
        discriminator_learning_rate=0.0,
        discriminator_reward="logit",
        max_steps=25,
        per_device_train_batch_size=16,
        num_generations=16,
        learning_rate=1e-2,
    )
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "rewards/discriminator/mean" in entry]
    first, last = (sum(e["rewards/discriminator/mean"] for e in part) for part in (entries[:3], entries[-3:]))
    assert last > first + 3


@pytest.mark.slow  # all shapes are in test_token_credit
def test_reward_shapes_give_finite_advantages(make_credit_trainer):
    for shape in REWARDS:
        trainer = make_credit_trainer(max_steps=1, discriminator_reward=shape)
        (batch,) = captured(trainer)
        assert batch["advantages"].isfinite().all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("discount", 1.5),
        ("discount", -0.1),
        ("discount", float("nan")),
        ("scale_rewards", "group"),
        ("loss_type", "vespo"),
        ("off_policy_mask_threshold", 0.5),
    ],
)
def test_config_refuses_what_works_on_whole_texts(make_credit_config, name, value):
    with pytest.raises(ValueError, match=name):
        make_credit_config(**{name: value})


def test_config_of_the_plain_trainer_is_refused(make_config):
    with pytest.raises(TypeError, match="TokenCreditConfig, got AdversarialConfig"):
        TokenCreditTrainer("someone/generator", args=make_config())
    with pytest.raises(TypeError, match="TokenCreditConfig, got NoneType"):
        TokenCreditTrainer("someone/generator")


@pytest.mark.parametrize("name", ["tools", "rollout_func", "environment_factory", "safety_gate"])
def test_trainer_refuses_what_is_of_whole_texts(make_credit_trainer, name):
    with pytest.raises(ValueError, match=name):
        make_credit_trainer(**{name: [print] if name == "tools" else print})


def test_token_credit_warms_up_and_evaluates(make_credit_trainer):
    """Neither the warm-up nor an evaluation has advantages of tokens."""
    trainer = make_credit_trainer(discriminator_warmup_steps=2, max_steps=1)
    before = weights(trainer.model)
    trainer.train()
    assert trainer.discriminator.num_updates == 3
    assert moved(before, trainer.model)
    metrics = trainer.evaluate(eval_dataset=trainer.train_dataset.select(range(4)))
    assert "eval_discriminator/loss" in metrics


def test_discriminator_that_is_not_causal_is_refused(make_credit_trainer):
    with pytest.raises(ValueError, match="causal discriminator"):
        make_credit_trainer(discriminator=bert_classifier())
