import math

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch.testing import assert_close

from hf_mgan import AdversarialTrainer
from hf_mgan.metrics.completion_likelihood import log_density_drop, sequence_logps, tempered_logps


class Coins(torch.nn.Module):
    """A language model over four tokens that gives token t after token s the probability (t + 1 + s) / (10 + 4 s)."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids, attention_mask):
        logits = (torch.arange(4) + 1 + input_ids[..., None]).log()
        return type("Output", (), {"logits": logits})


def test_logps_are_summed_over_the_completion_only_by_hand():
    # "2 | 0 3": p(0 after 2) = 3/18, p(3 after 0) = 4/10. "1 1 | 2": p(2 after 1) = 4/14.
    logps = sequence_logps(Coins(), [[2], [1, 1]], [[0, 3], [2]])
    assert_close(logps, torch.tensor([math.log(3 / 18 * 4 / 10), math.log(4 / 14)]))


def test_temperature_divides_the_logits_before_the_softmax():
    # At temperature 1/2 probabilities go with their squares: after 0 they are (1, 4, 9, 16) / 30.
    assert_close(sequence_logps(Coins(), [[0]], [[3]], temperature=0.5), torch.tensor([math.log(16 / 30)]))


def test_batches_and_padding_change_nothing(generator):
    prompts, completions = [[1], [1, 7], [8, 9, 10]], [[7, 8, 2], [9], [11, 2]]
    whole = sequence_logps(generator.eval(), prompts, completions)
    assert_close(sequence_logps(generator, prompts, completions, batch_size=1), whole)


def test_several_temperatures_take_the_passes_of_one(generator):
    prompts, completions = [[8, 9, 10], [1], [1, 7]], [[11, 2], [7, 8, 2], [9]]
    generator.eval()
    expected = torch.stack([sequence_logps(generator, prompts, completions, t) for t in (0.5, 1.0, 2.0)])
    passes = []
    generator.register_forward_hook(lambda *_: passes.append(1))
    assert_close(tempered_logps(generator, prompts, completions, [0.5, 1.0, 2.0], batch_size=2), expected)
    assert len(passes) == 2
    assert (expected[0] - expected[1]).abs().min() > 1e-3


def test_sequences_of_one_length_share_a_batch_and_keep_their_places():
    widths = []

    class Watched(Coins):
        def forward(self, input_ids, attention_mask):
            widths.append(input_ids.size(1))
            return super().forward(input_ids, attention_mask)

    prompts, completions = [[0], [0], [0], [0]], [[1, 1, 1, 1], [3], [2, 2, 2, 2], [2]]
    logps = sequence_logps(Watched(), prompts, completions, batch_size=2)
    assert widths == [2, 5]
    assert_close(logps[[1, 3]], torch.tensor([math.log(4 / 10), math.log(3 / 10)]))
    assert_close(logps[0], torch.tensor(math.log(2 / 10) + 3 * math.log(3 / 14)).squeeze())
    assert_close(logps[2], torch.tensor(math.log(3 / 10) + 3 * math.log(5 / 18)).squeeze())


def test_the_drop_is_zero_at_first_and_then_the_difference_to_the_base(generator):
    model = get_peft_model(generator, LoraConfig(r=2, target_modules=["c_attn"], lora_dropout=0.5)).train()
    prompts, completions = [[1], [1]], [[7, 8, 2], [9, 2]]
    assert_close(log_density_drop(model, prompts, completions), torch.zeros(2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    drop = log_density_drop(model, prompts, completions)
    assert model.training
    model.eval()
    now = sequence_logps(model, prompts, completions)
    with model.disable_adapter():
        start = sequence_logps(model, prompts, completions)
    assert_close(drop, start - now)
    assert drop.abs().min() > 1e-3


@pytest.fixture
def arguments(generator, tokenizer, classifier, pair_tokenizer, dataset, make_config):
    return {
        "model": generator,
        "args": make_config(discriminator_density_offset=True, max_steps=3),
        "train_dataset": dataset,
        "eval_dataset": dataset.select(range(4)),
        "processing_class": tokenizer,
        "discriminator": classifier,
        "discriminator_processing_class": pair_tokenizer,
    }


def test_in_the_game_offsets_are_those_of_the_tokens_that_were_sampled(arguments):
    trainer = AdversarialTrainer(**arguments, peft_config=LoraConfig(r=2, target_modules=["c_attn"]))
    seen = []
    update = trainer.discriminator.update

    def watched(*args, completion_offsets, reference_offsets, **kwargs):
        seen.append((completion_offsets, reference_offsets))
        return update(*args, completion_offsets=completion_offsets, reference_offsets=reference_offsets, **kwargs)

    trainer.discriminator.update = watched
    trainer.train()
    (first_fake, first_real), *_, (last_fake, last_real) = seen
    assert_close(first_fake, torch.zeros(4))
    assert_close(first_real, torch.zeros(4))
    assert last_fake.abs().max() > 1e-3
    assert last_real.abs().max() > 1e-3
    assert "eval_discriminator/value" in trainer.evaluate()


def test_the_offset_needs_new_adapters_and_prompts(arguments):
    with pytest.raises(ValueError, match=r"give peft_config=.*merge_and_unload"):
        AdversarialTrainer(**arguments)
    with pytest.raises(ValueError, match=r"no real_dataset="):
        AdversarialTrainer(
            **arguments, peft_config=LoraConfig(r=2), real_dataset=Dataset.from_dict({"text": ["the dog"]})
        )
