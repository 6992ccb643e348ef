import math

import torch
from torch.testing import assert_close

from hf_mgan.metrics.likelihood import sequence_logps
from hf_mgan.training.real_text_loss import real_text_batch, real_text_nll

from ..test_trainer import moved, weights


def test_real_text_batch_labels_real_texts_alone():
    batch = real_text_batch([[1], [1, 5]], [[6, 8, 2], [7]])
    assert batch["real_ids"].tolist() == [[1, 6, 8, 2], [1, 5, 7, 0]]
    assert batch["real_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert batch["real_labels"].tolist() == [[-100, 6, 8, 2], [-100, -100, 7, -100]]


def test_real_text_nll_is_a_mean_over_tokens(generator):
    generator.eval()
    prompts, texts = [[1], [1, 5]], [[6, 8, 2], [7]]
    total = sequence_logps(generator, prompts, texts).sum()
    assert_close(real_text_nll(generator, real_text_batch(prompts, texts)), -total / 4)


def test_real_text_nll_of_a_uniform_generator(generator):
    generator.lm_head.weight.data.zero_()
    batch = real_text_batch([[1]], [[6, 8, 2]])
    assert_close(real_text_nll(generator, batch), torch.tensor(math.log(generator.config.vocab_size)))


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


def test_real_text_gradient_with_accumulated_steps(make_trainer, make_config, generator):
    """The rows of a generation batch are shuffled into micro-batches of equal numbers of tokens, so means agree."""
    for module in generator.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    gradients = []
    for accumulation in (1, 2):
        config = make_config(
            real_text_coef=1.0,
            discriminator_weight=0.0,
            per_device_train_batch_size=4 // accumulation,
            gradient_accumulation_steps=accumulation,
            max_steps=1,
            learning_rate=0.0,
            max_grad_norm=1e9,
        )
        trainer = make_trainer(config, model=generator)
        trainer.train()
        gradients.append(next(e["grad_norm"] for e in trainer.state.log_history if "grad_norm" in e))
    assert_close(gradients[0], gradients[1], rtol=1e-4, atol=0)


def test_evaluation_measures_real_nll(make_trainer, make_config, dataset):
    trainer = make_trainer(make_config(per_device_eval_batch_size=4), eval_dataset=dataset.select(range(4)))
    before = weights(trainer.model)
    metrics = trainer.evaluate()
    texts = trainer._tokenizer(dataset["text"][:4], add_special_tokens=False)["input_ids"]
    total = sequence_logps(trainer.model, [[1]] * 4, [[*row, 2] for row in texts]).sum().item()
    # Each row is asked for num_generations completions, so its text counts as often.
    assert_close(metrics["eval_generator/real_nll"], -total / 28, rtol=1e-4, atol=0)
    assert not moved(before, trainer.model)
