import copy
import math

import pytest
import torch
from datasets import Dataset
from torch.testing import assert_close

from hf_mgan.metrics.likelihood import sequence_logps
from hf_mgan.training.real_text_loss import num_real_tokens, real_text_batch, real_text_nll, weighted_by_tokens

from ..conftest import texts
from ..test_trainer import moved, weights


def test_real_text_batch_labels_real_texts_alone():
    batch = real_text_batch([[1], [1, 5]], [[6, 8, 2], [7]])
    assert batch["real_ids"].tolist() == [[1, 6, 8, 2], [1, 5, 7, 0]]
    assert batch["real_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert batch["real_labels"].tolist() == [[-100, 6, 8, 2], [-100, -100, 7, -100]]


def test_real_text_nll_is_a_sum_over_tokens(generator):
    generator.eval()
    prompts, texts = [[1], [1, 5]], [[6, 8, 2], [7]]
    batch = real_text_batch(prompts, texts)
    assert_close(real_text_nll(generator, batch), -sequence_logps(generator, prompts, texts).sum())
    assert num_real_tokens(batch) == 4


def test_real_text_nll_of_a_uniform_generator(generator):
    generator.lm_head.weight.data.zero_()
    batch = real_text_batch([[1]], [[6, 8, 2]])
    assert_close(real_text_nll(generator, batch), 3 * torch.tensor(math.log(generator.config.vocab_size)))


def test_real_text_nll_computes_where_its_texts_are(generator):
    """Weights that FSDP offloads lie on the CPU while the model computes elsewhere; here they lie nowhere at all."""
    generator.eval()

    class Offloaded(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1, device="meta"))

        def forward(self, **inputs):
            return generator(**inputs)

    batch = real_text_batch([[1]], [[6, 8, 2]])
    assert_close(real_text_nll(Offloaded(), batch), real_text_nll(generator, batch))


def test_real_nll_of_several_batches_is_one_mean():
    """(6 + 1) nats over (2 + 5) tokens; the mean of 3 and 0.2 would be 1.6."""
    metrics = {"generator/real_nll": [6.0, 1.0], "generator/real_tokens": [2.0, 5.0], "kl": [0.5]}
    weighted_by_tokens(metrics)
    assert metrics == {"generator/real_nll": [1.0], "kl": [0.5]}


def test_real_text_coef_alone_fits_the_real_texts(make_trainer, make_config):
    config = make_config(real_text_coef=1.0, discriminator_weight=0.0, max_steps=60, learning_rate=1e-2)
    trainer = make_trainer(config)
    trainer.train()
    nll = [entry["generator/real_nll"] for entry in trainer.state.log_history if "generator/real_nll" in entry]
    assert len(nll) == 60
    # Words are drawn uniformly from 20 and the sixth is followed by the end, so 6/7 log 20 = 2.57 is the best.
    assert nll[0] > 3.2
    assert nll[-1] < 2.95


def test_generator_stands_still_without_any_loss(make_trainer, make_config):
    trainer = make_trainer(make_config(discriminator_weight=0.0))
    before = weights(trainer.model)
    trainer.train()
    assert not moved(before, trainer.model)
    assert not any("generator/real_nll" in entry for entry in trainer.state.log_history)


def uneven(count):
    """Texts of 1 to 6 words."""
    return Dataset.from_dict({"text": [text for row in range(count) for text in texts(1, row, 1 + row % 6)]})


def after_steps(make_trainer, make_config, generator, **changes):
    """Weights of a generator that learns from real texts alone, and its log."""
    for module in generator.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    config = make_config(real_text_coef=1.0, discriminator_weight=0.0, optim="sgd", learning_rate=0.1, **changes)
    trainer = make_trainer(config, model=copy.deepcopy(generator), train_dataset=uneven(64))
    trainer.train()
    return weights(trainer.model), [e["generator/real_nll"] for e in trainer.state.log_history if "loss" in e]


@pytest.mark.parametrize("layout", [(4, 2), (2, 4), (1, 8)])
def test_real_text_step_is_that_of_one_batch(make_trainer, make_config, generator, layout):
    """Texts of 1 to 6 words: means of micro-batches would weigh the tokens of short ones more."""
    runs = [
        after_steps(
            make_trainer,
            make_config,
            generator,
            max_steps=2,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
        )
        for size, accumulation in ((8, 1), layout)
    ]
    (first, nll), (second, again) = runs
    assert any(not torch.equal(first[name], generator.state_dict()[name]) for name in first)
    for name, value in first.items():
        assert_close(second[name], value, atol=1e-6, rtol=0)
    assert again == pytest.approx(nll, abs=1e-5)


def test_real_text_steps_within_a_generation_batch(make_trainer, make_config, generator):
    """Two steps of 8 in a generation batch of 16, in one micro-batch or in four, share one normaliser."""
    runs = []
    for size, accumulation, parts in ((8, 1, 2), (2, 4, 8)):
        layout = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        torch.manual_seed(0)
        runs.append(
            after_steps(make_trainer, make_config, generator, max_steps=2, steps_per_generation=parts, **layout)
        )
    (first, nll), (second, again) = runs
    for name, value in first.items():
        assert_close(second[name], value, atol=1e-6, rtol=0)
    assert again == pytest.approx(nll, abs=1e-5)


def test_evaluation_measures_real_nll(make_trainer, make_config, dataset):
    trainer = make_trainer(make_config(per_device_eval_batch_size=4), eval_dataset=dataset.select(range(4)))
    before = weights(trainer.model)
    metrics = trainer.evaluate()
    texts = trainer._tokenizer(dataset["text"][:4], add_special_tokens=False)["input_ids"]
    total = sequence_logps(trainer.model, [[1]] * 4, [[*row, 2] for row in texts]).sum().item()
    # Each row is asked for num_generations completions, so its text counts as often.
    assert_close(metrics["eval_generator/real_nll"], -total / 28, rtol=1e-4, atol=0)
    assert not moved(before, trainer.model)


def test_evaluated_real_nll_is_a_mean_over_all_tokens(make_trainer, make_config):
    """Batches of other sizes have means of their own, and one mean of all."""
    values = []
    for size in (4, 8, 16):
        config = make_config(per_device_eval_batch_size=size)
        trainer = make_trainer(config, eval_dataset=uneven(8))
        values.append(trainer.evaluate()["eval_generator/real_nll"])
    assert values == pytest.approx([values[0]] * 3, abs=1e-5)
