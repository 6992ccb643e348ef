"""The classical test of text GANs: an LSTM with random weights as the oracle, whose density is known.

Yu et al. 2017, "SeqGAN" ([1609.05473](https://huggingface.co/papers/1609.05473)), section "Synthetic data
experiments": texts of exactly 20 words out of 5000 are drawn from an LSTM whose weights are drawn from N(0, 1);
10,000 of them are what the generator may learn from. As there, the first word follows the embedding of word 0, and
embedding and state have 32 components. The published weights are not used: every seed has an oracle of its own.

What differs from the published setup, and what is held so that the comparison is fair:

- The generator is a transformer of one layer and 32 components, of about as many weights as the published LSTM, since
  the trainer takes transformers. No number here is one of theirs.
- Words are "w0" to "w4999", one token each, so that nothing is lost on the way through text. A text has no end: both
  sides have exactly 20 words, the density of the generator has no term for an end, and its special tokens have
  probability 0 (see [`make_generator`]).
- Maximum likelihood is stopped where held-out texts are likeliest, and measured at every temperature. Two runs of
  adversarial training start from it, with the demo's settings (`hf_mgan.demo.parts.adversarial_config`), one with a
  lower learning rate of the generator, and are measured at the same temperatures.
- All models learn from the same 10,000 texts: generator, encoder and discriminator. The oracle gives no reward.
- What is measured is exact but for the sample: held-out texts of either side, both densities known.

In: sizes and a seed. Out: a dict of plain values.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PhiConfig, PhiForCausalLM, PreTrainedTokenizerBase

from hf_mgan import AdversarialTrainer
from hf_mgan.demo.models import SPECIAL_TOKENS, make_tokenizer
from hf_mgan.demo.run import DemoArguments

from ..sweep.stopwatch import Stopwatch
from .metrics import compare, diversity
from .training import described, discriminator_aucs, fit, last_steps, train_adversarially


CHUNK = 250  # texts whose logits over all words are held at a time
# Of maximum likelihood. The decay keeps 10,000 texts from being learnt by heart.
LEARNING_RATE, WEIGHT_DECAY = 5e-3, 1.0
NEVER = -1e4  # a logit whose probability is 0 in float32
OWN_SEED = 1_000_000  # of the texts that measure the oracle itself


class Oracle(nn.Module):
    """An LSTM language model with weights from N(0, 1), which writes texts of one length and nothing after them.

    Args:
        words (`int`): Size of the vocabulary. A word is its number.
        width (`int`): Components of an embedding and of the state.
        length (`int`): Words per text.
        seed (`int`): Seed of the weights.
    """

    def __init__(self, words: int, width: int, length: int, seed: int) -> None:
        super().__init__()
        self.length = length
        self.embedding = nn.Embedding(words, width)
        self.recurrent = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, words)
        generator = torch.Generator().manual_seed(seed)
        for weight in self.parameters():
            nn.init.normal_(weight, generator=generator)
        # torch adds two biases where the original has one.
        nn.init.zeros_(self.recurrent.bias_hh_l0)
        self.requires_grad_(False)

    def sample(self, count: int, seed: int) -> Tensor:
        """Draw texts; the same seed draws the same ones.

        Args:
            count (`int`): How many.
            seed (`int`): Seed.

        Returns:
            `Tensor` of shape `(count, length)`, int64: Words.
        """
        generator = torch.Generator().manual_seed(seed)
        parts = []
        for start in range(0, count, CHUNK):
            words = [torch.zeros(min(CHUNK, count - start), 1, dtype=torch.int64)]
            state = None
            for _ in range(self.length):
                hidden, state = self.recurrent(self.embedding(words[-1]), state)
                words.append(torch.multinomial(self.head(hidden[:, 0]).softmax(-1), 1, generator=generator))
            parts.append(torch.cat(words[1:], 1))
        return torch.cat(parts)

    def token_logps(self, texts: Tensor) -> Tensor:
        """Compute the exact log-probability of every word given those before it.

        Args:
            texts (`Tensor` of shape `(N, length)`, int64): Words.

        Returns:
            `Tensor` of shape `(N, length)`, float64: In nats.
        """
        parts = []
        for chunk in texts.split(CHUNK):
            before = torch.cat([torch.zeros_like(chunk[:, :1]), chunk[:, :-1]], 1)
            logits = self.head(self.recurrent(self.embedding(before))[0])
            parts.append(logits.log_softmax(-1).gather(2, chunk[:, :, None]).squeeze(2))
        return torch.cat(parts).double()


@dataclass(frozen=True)
class Sizes:
    """Sizes of this part.

    Args:
        words (`int`, *optional*, defaults to 5000): Size of the vocabulary.
        length (`int`, *optional*, defaults to 20): Words per text.
        width (`int`, *optional*, defaults to 32): Components of the oracle's state, and of the generator's.
        sentences (`int`, *optional*, defaults to 10000): Texts to learn from, for all models.
        held_out (`int`, *optional*, defaults to 1000): Texts by which maximum likelihood is stopped.
        samples (`int`, *optional*, defaults to 2500): Held-out texts per side behind each metric.
        schedules (`tuple[int, ...]`, *optional*): Steps of maximum likelihood.
        batch_size (`int`, *optional*, defaults to 64): Texts per step of maximum likelihood.
        encoder_steps (`int`, *optional*, defaults to 400): Steps of the discriminator's encoder on masked words.
        warmup_steps (`int`, *optional*, defaults to 200): Updates of the discriminator in its warm-up.
        steps (`int`, *optional*, defaults to 200): Steps of adversarial training.
        learning_rate (`float`, *optional*, defaults to 1e-4): Of the generator in the first run; the second has the
            demo's, 7e-4.
        adversarial_batch_size (`int`, *optional*, defaults to 128): Texts per side and step of adversarial training,
            and texts per step of the encoder.
        temperatures (`tuple[float, ...]`, *optional*): At which generators are measured.
    """

    words: int = 5000
    length: int = 20
    width: int = 32
    sentences: int = 10_000
    held_out: int = 1000
    samples: int = 2500
    schedules: tuple[int, ...] = (1600,)
    batch_size: int = 64
    encoder_steps: int = 400
    warmup_steps: int = 200
    steps: int = 200
    learning_rate: float = 1e-4
    adversarial_batch_size: int = 128
    temperatures: tuple[float, ...] = (0.4, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)


TINY = Sizes(
    words=30,
    length=6,
    width=8,
    sentences=100,
    held_out=20,
    samples=40,
    schedules=(4, 8),
    batch_size=10,
    encoder_steps=2,
    warmup_steps=2,
    steps=10,
    adversarial_batch_size=8,
    temperatures=(0.4, 1.0),
)


def make_generator(tokenizer: PreTrainedTokenizerBase, width: int) -> PhiForCausalLM:
    """Make a transformer of one layer that can write words and nothing else.

    It has about the weights of the published LSTM, nearly all of them in the embeddings on both sides of the layer.
    Phi has a bias for every token at its output. Those of the special tokens are so low that their probability is 0 in
    float32, and so is their gradient: no text ends early, no mass is lost, and no step of any training changes it.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Made by [`~demo.models.make_tokenizer`].
        width (`int`): Components of an embedding; a multiple of 4.

    Returns:
        `PhiForCausalLM`: With random weights.
    """
    config = PhiConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = PhiForCausalLM(config)
    with torch.no_grad():
        model.lm_head.bias[: len(SPECIAL_TOKENS)] = NEVER
    return model


def token_logps(model: Any, texts: Tensor, temperature: float = 1.0) -> Tensor:
    """Compute the log-probability of every word of a generator's texts at a temperature.

    Args:
        model (`PreTrainedModel` or `PeftModel`): Made by [`make_generator`].
        texts (`Tensor` of shape `(N, T)`, int64): Words.
        temperature (`float`, *optional*, defaults to 1.0): By which the logits are divided before the softmax, word
            for word.

    Returns:
        `Tensor` of shape `(N, T)`, float64: In nats.
    """
    parts = []
    for chunk in texts.split(CHUNK):
        ids = chunk + len(SPECIAL_TOKENS)
        start = torch.full_like(ids[:, :1], model.config.bos_token_id)
        with torch.no_grad():
            logits = model(input_ids=torch.cat([start, ids[:, :-1]], 1)).logits
        parts.append((logits / temperature).log_softmax(-1).gather(2, ids[:, :, None]).squeeze(2))
    return torch.cat(parts).double()


def draw(model: Any, count: int, length: int, temperature: float, seed: int) -> Tensor:
    """Draw texts of a generator, from the whole vocabulary; the same seed draws the same ones.

    Args:
        model (`PreTrainedModel` or `PeftModel`): Made by [`make_generator`].
        count (`int`): How many.
        length (`int`): Words per text.
        temperature (`float`): As in [`token_logps`].
        seed (`int`): Seed.

    Returns:
        `Tensor` of shape `(count, length)`, int64: Words.

    Raises:
        ValueError: If a text has anything but words.
    """
    parts = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for first in range(0, count, CHUNK):
            start = torch.full((min(CHUNK, count - first), 1), model.config.bos_token_id)
            drawn = model.generate(
                input_ids=start,
                attention_mask=torch.ones_like(start),
                do_sample=True,
                temperature=temperature,
                top_k=0,
                max_new_tokens=length,
            )
            parts.append(drawn[:, 1:] - len(SPECIAL_TOKENS))
    texts = torch.cat(parts)
    if texts.size(1) != length or (texts < 0).any():
        raise ValueError("The generator wrote a special token.")
    return texts


class OracleMetrics:
    """Compares generators with an oracle on the same held-out texts.

    Args:
        oracle ([`Oracle`]): The oracle.
        texts (`Tensor` of shape `(N, T)`, int64): Texts of it that no model has seen.
        learnt (`Tensor` of shape `(M, T)`, int64): Those that the models learn from.
        seed (`int`): Seed of the generated texts.
    """

    def __init__(self, oracle: Oracle, texts: Tensor, learnt: Tensor, seed: int) -> None:
        self.oracle, self.texts, self.learnt, self.seed = oracle, texts, learnt, seed
        self.real_p = oracle.token_logps(texts)

    def __call__(self, model: Any, temperature: float) -> dict[str, float]:
        """Return [`~oracle.metrics.compare`] and [`~oracle.metrics.diversity`] of a generator at a temperature."""
        model.eval()
        fake = draw(model, *self.texts.shape, temperature, self.seed)
        real_q, fake_q = (token_logps(model, texts, temperature) for texts in (self.texts, fake))
        compared = compare(self.real_p, real_q, self.oracle.token_logps(fake), fake_q)
        return {"temperature": temperature, **compared, **diversity(fake)}

    def references(self) -> dict[str, dict[str, float]]:
        """Return the same of what the others are read by: the oracle itself, and words drawn each for itself.

        Those are drawn as often as they occur in the learnt texts (with one more of each), or all alike.
        """
        words = self.oracle.head.out_features
        own = self.oracle.sample(len(self.texts), OWN_SEED + self.seed)
        logps = self.oracle.token_logps
        references = {"oracle": compare(self.real_p, self.real_p, logps(own), logps(own)) | diversity(own)}
        counts = torch.bincount(self.learnt.flatten(), minlength=words) + 1.0
        for name, weights in (("unigram", counts), ("uniform", torch.ones(words))):
            log_probs = (weights / weights.sum()).double().log()
            generator = torch.Generator().manual_seed(OWN_SEED + self.seed)
            drawn = torch.multinomial(weights, self.texts.numel(), replacement=True, generator=generator)
            drawn = drawn.view_as(self.texts)
            compared = compare(self.real_p, log_probs[self.texts], logps(drawn), log_probs[drawn])
            references[name] = compared | diversity(drawn)
        return references


def measure(sizes: Sizes, seed: int) -> dict[str, Any]:
    """Make an oracle, train a generator on its texts by maximum likelihood, then adversarially, and measure both.

    Args:
        sizes ([`Sizes`]): Sizes.
        seed (`int`): Seed of oracle, texts and models.

    Returns:
        `dict`: `references`, see [`OracleMetrics.references`]; `likelihood`, `adversarial` and, with the demo's
        learning rate, `fast`: the metrics at every temperature; `fits`, what became of maximum likelihood; `training`
        and `fast_training`, the trainer's metrics over the last steps of both runs; `discriminator_aucs`, what the
        discriminator has learnt ([`~oracle.training.discriminator_aucs`]) after its warm-up and after either run;
        `seconds` of the processor.
    """
    stopwatch = Stopwatch()
    with tempfile.TemporaryDirectory() as name, stopwatch.part("all"):
        folder = Path(name)
        oracle = Oracle(sizes.words, sizes.width, sizes.length, seed)
        # Three sets of texts per seed, which share none but by chance.
        learnt, stopping, held_out = (
            oracle.sample(count, 3 * seed + number)
            for number, count in enumerate((sizes.sentences, sizes.held_out, sizes.samples))
        )
        vocabulary = [f"w{word}" for word in range(sizes.words)]
        tokenizer, encoder_tokenizer = (make_tokenizer(vocabulary, adds_ends) for adds_ends in (False, True))
        measured = OracleMetrics(oracle, held_out, learnt, seed)
        with stopwatch.part("likelihood"):
            model, fits = fit(
                lambda: make_generator(tokenizer, sizes.width),
                *(with_start(texts, tokenizer) for texts in (learnt, stopping)),
                tokenizer,
                folder / "likelihood",
                schedules=sizes.schedules,
                batch_size=sizes.batch_size,
                learning_rate=LEARNING_RATE,
                weight_decay=WEIGHT_DECAY,
                seed=seed,
            )
        with stopwatch.part("measurement"):
            references = measured.references()
            likelihood = [measured(model, temperature) for temperature in sizes.temperatures]

        def as_texts(rows: Tensor) -> list[str]:
            return [" ".join(vocabulary[word] for word in row) for row in rows.tolist()]

        demo = DemoArguments(
            sentences=sizes.sentences,
            batch_size=sizes.adversarial_batch_size,
            encoder_steps=sizes.encoder_steps,
            warmup_steps=sizes.warmup_steps,
            steps=sizes.steps,
        )
        learnt_texts, held_out_texts = as_texts(learnt), as_texts(held_out)
        aucs: list[dict[str, float]] = []  # after the warm-up and after training, of the first run and of the second

        def look(trainer: AdversarialTrainer) -> None:
            """Measure the discriminator against the generator as it is now."""
            with stopwatch.part("measurement"):
                generated = as_texts(draw(trainer.model.eval(), *held_out.shape, 1.0, OWN_SEED + seed))
                aucs.append(discriminator_aucs(trainer, learnt_texts[: len(held_out)], held_out_texts, generated))

        measured_runs, training = {}, {}
        for name, rate in (("adversarial", sizes.learning_rate), ("fast", None)):
            trainer = train_adversarially(
                folder / "likelihood",
                folder,
                learnt_texts,
                encoder_tokenizer,
                demo,
                stopwatch,
                seed=seed,
                rank=sizes.width,
                max_tokens=sizes.length,
                learning_rate=rate,
                after_warmup=look,
            )
            look(trainer)
            with stopwatch.part("measurement"):
                measured_runs[name] = [measured(trainer.model, temperature) for temperature in sizes.temperatures]
            training[name] = last_steps(trainer.state.log_history)
    return {
        "references": references,
        "likelihood": likelihood,
        **measured_runs,
        "fits": described(fits),
        "training": training["adversarial"],
        "fast_training": training["fast"],
        "discriminator_aucs": {"warmup": aucs[0], "adversarial": aucs[1], "fast": aucs[3]},
        "seconds": stopwatch.seconds,
    }


def with_start(texts: Tensor, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Return the tokens of texts, each after the token that generation starts from, and with no end."""
    return [[tokenizer.bos_token_id, *row] for row in (texts + len(SPECIAL_TOKENS)).tolist()]
