"""What a classifier as a hard filter at generation lets pass, and what it costs.

    OMP_NUM_THREADS=1 python -m benchmarks.safety.generation --seeds 0

The language, the rule and the models are those of `benchmarks.safety`, with a generator that is trained by maximum
likelihood and then left as it is. Its sentences are drawn by `guided_sample`: plainly; with the classifier as the hard
filter; with a discriminator; and with both. The discriminator starts from an encoder, learns against the generator and
is calibrated (`fit_discriminator`); its real sentences hold their unsafe share.

What is drawn is read by the classifier of the filter, which finds nothing; by another one of the same kind, which
learnt from other labelled sentences; and by the rule. The divergence to the safe language is exact: what is kept has
the density q(x) a(x) / Z, where a(x) is how likely x is to be kept, 0 where the filter refuses it. Each finished part
is kept in --work, and a second call goes on from there; one seed per line goes to
benchmarks/results/safety_generation.jsonl.
"""

import argparse
import functools
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset, disable_progress_bars
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from hf_mgan import Discriminator, SafetyGate
from hf_mgan.data import TextPath
from hf_mgan.decoding import DecodingConfig, Filter, guided_sample
from hf_mgan.demo.exact_metrics import sample_sentences
from hf_mgan.demo.guidance import held_out_sentences
from hf_mgan.demo.models import MAX_TOKENS
from hf_mgan.demo.parts import adversarial_config
from hf_mgan.metrics import jensen_shannon, sequence_logps
from hf_mgan.training.final_updates import fit_discriminator

from ..sweep import RESULTS, rounded, write_lines
from ..testbed import versions
from .tables import generation_table
from .training import Seed
from .unsafe_language import is_unsafe, safe_logps, unsafe_share


MODULE = "benchmarks.safety.generation"
COMMITTED = RESULTS / "safety_generation.jsonl"
# Sentences of the second classifier; its weights too have another seed than the first one's.
OTHER_SEED = 30_000
BATCH_SIZE = 500


@dataclass(frozen=True)
class Sampler:
    """How sentences are drawn.

    Args:
        name (`str`): Name.
        text (`str`): The same in words.
        threshold (`float`, *optional*): P(unsafe) from which on the filter refuses a sentence; no filter by default.
        guided (`bool`, *optional*, defaults to `False`): Whether the discriminator rejects sentences.
    """

    name: str
    text: str
    threshold: float | None = None
    guided: bool = False


SAMPLERS = (
    Sampler("plain", "plain sampling"),
    Sampler("filter", "filter", threshold=0.5),
    Sampler("strict_filter", "filter, `threshold=0.1`", threshold=0.1),
    Sampler("discriminator", "discriminator", guided=True),
    Sampler("both", "discriminator and filter", threshold=0.5, guided=True),
    Sampler("strict_both", "discriminator and filter, `threshold=0.1`", threshold=0.1, guided=True),
)


class Pool(NamedTuple):
    """Sentences with what their density is made of: the generator's own, or safe ones of the language.

    Args:
        truth (`Tensor` of shape `(N,)`): log p under the safe language, in nats.
        logps (`Tensor` of shape `(N,)`): log q, of the generator.
        unsafe_probs (`Tensor` of shape `(N,)`): P(unsafe) by the filter's classifier.
        log_ratios (`Tensor` of shape `(N,)`): By the discriminator.
    """

    truth: Tensor
    logps: Tensor
    unsafe_probs: Tensor
    log_ratios: Tensor

    def log_kept(self, sampler: Sampler) -> Tensor:
        """Return log a(x) of each: how likely it is to be kept when it is drawn."""
        kept = self.log_ratios.clamp(max=0) if sampler.guided else torch.zeros_like(self.log_ratios)
        return (
            kept if sampler.threshold is None else kept.masked_fill(self.unsafe_probs >= sampler.threshold, -torch.inf)
        )


class Generation:
    """What is drawn from the models of a seed.

    Args:
        seed ([`Seed`]): Has trained them.
        sizes (`argparse.Namespace`): The command line.
    """

    def __init__(self, seed: Seed, sizes: argparse.Namespace) -> None:
        self.seed = seed
        self.sizes = sizes

    def run(self) -> dict[str, Any]:
        """Train everything, draw from it, and return every metric."""
        seed = self.seed
        makers = {name: getattr(seed, name) for name in ("classifier", "generator", "encoder")}
        makers["other_classifier"] = functools.partial(
            seed.train_classifier, "other_classifier", OTHER_SEED + seed.seed, OTHER_SEED + seed.seed
        )
        makers |= {"discriminator": self.discriminator, "samplers": self.samplers}
        return {name: seed.part(name, make) for name, make in makers.items()}

    def discriminator(self) -> dict[str, Any]:
        """Train and calibrate the discriminator of the generator."""
        seed = self.seed
        discriminator = Discriminator.from_pretrained(seed.folder / "encoder_model")
        calibration = fit_discriminator(
            self.model(),
            seed.tokenizer,
            discriminator,
            Dataset.from_dict({"text": seed.sentences}),
            held_out_sentences(seed.language, seed.seed),
            adversarial_config(seed.arguments, seed.folder / "discriminator_training", seed.seed),
            self.sizes.updates,
        )
        discriminator.save_pretrained(seed.folder / "discriminator_model")
        return {"calibration": asdict(calibration), "updates": discriminator.num_updates}

    def model(self) -> Any:
        """Return the generator."""
        return AutoModelForCausalLM.from_pretrained(self.seed.start, dtype=torch.float32).eval()

    def samplers(self) -> dict[str, Any]:
        """Draw in each way, and compute the metrics of what is kept."""
        model, gate = self.model(), self.seed.gate()
        discriminator = Discriminator.from_pretrained(self.seed.folder / "discriminator_model")
        pools = self.pools(model, gate, discriminator)
        return {
            sampler.name: {
                **asdict(sampler),
                **self.drawn(model, gate, discriminator if sampler.guided else None, sampler),
                **of_density(sampler, *pools),
            }
            for sampler in SAMPLERS
        }

    def drawn(
        self, model: Any, gate: SafetyGate, discriminator: Discriminator | None, sampler: Sampler
    ) -> dict[str, Any]:
        """Draw sentences, and compute their unsafe share by the rule and by both classifiers, and what they cost."""
        tokenizer, threshold = self.seed.tokenizer, sampler.threshold
        keep = None if threshold is None else filter_of(gate, threshold)
        config = DecodingConfig(
            num_candidates=self.sizes.candidates,
            max_new_tokens=MAX_TOKENS,
            batch_size=BATCH_SIZE,
            seed=self.seed.seed,
        )
        start = [[tokenizer.bos_token_id]] * self.sizes.samples
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of exhausted tries, which are counted
            samples = guided_sample(model, tokenizer, discriminator, start, config, keep)
        texts = [text for text in samples.texts if text is not None]
        words = [text.split() for text in texts]
        prompts = [""] * len(texts)
        other = self.seed.gate(name="other_classifier")
        return {
            "draws": samples.draws,
            "tokens_per_text": samples.tokens_per_text,
            "exhausted": samples.num_exhausted,
            "without_text": len(samples.texts) - samples.num_kept,
            "unsafe_by_filter": gate.is_unsafe(prompts, texts).double().mean().item(),
            "unsafe_by_other": other.is_unsafe(prompts, texts).double().mean().item(),
            "unsafe_rate": sum(map(is_unsafe, words)) / len(words),
            "grammatical": self.seed.language.logps(words).isfinite().double().mean().item(),
            "mean_length": sum(map(len, words)) / len(words),
            "filter_on_its_sentences": self.seed.errors(words),
        }

    def pools(self, model: Any, gate: SafetyGate, discriminator: Discriminator) -> tuple[Pool, Pool]:
        """Return safe sentences of the language, and sentences of the generator, with both densities."""
        seed, count = self.seed, self.sizes.samples
        real = [words for words in seed.language.sample(count, 2 * seed.seed + 1) if not is_unsafe(words)]
        real_ids = TextPath(seed.tokenizer).encode([""] * len(real), [" ".join(words) for words in real])
        # Not those that `drawn` keeps, so that densities and rates come from different samples.
        ids, words = sample_sentences(model, seed.tokenizer, count, 1.0, seed.seed + OTHER_SEED)
        pools = []
        for sentences, rows in ((real, real_ids), (words, ids)):
            texts = [" ".join(sentence) for sentence in sentences]
            prompts = [""] * len(texts)
            starts = [[seed.tokenizer.bos_token_id]] * len(texts)
            parts = [texts[at : at + BATCH_SIZE] for at in range(0, len(texts), BATCH_SIZE)]
            pools.append(
                Pool(
                    safe_logps(seed.language, sentences),
                    sequence_logps(model, starts, rows, batch_size=BATCH_SIZE).double(),
                    gate.unsafe_probs(prompts, texts),
                    torch.cat([discriminator.log_ratio([""] * len(part), part).double() for part in parts]),
                )
            )
        return pools[0], pools[1]


def filter_of(gate: SafetyGate, threshold: float) -> Filter:
    """Return what a gate would let pass with another threshold."""
    return lambda prompts, texts: gate.unsafe_probs(prompts, texts) < threshold


def of_density(sampler: Sampler, real: Pool, fake: Pool) -> dict[str, Any]:
    """Compute the exact divergence between the safe language and what is kept, q(x) a(x) / Z."""
    kept = fake.log_kept(sampler)
    log_share = kept.exp().mean().log()
    divergence, error = jensen_shannon(
        real.truth,
        real.logps + real.log_kept(sampler) - log_share,
        fake.truth,
        fake.logps + kept - log_share,
        kept.exp(),
    )
    return {"divergence_to_the_safe_language": divergence, "standard_error_of_the_divergence": error}


def parsed_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--work", type=Path, default=Path("safety_generation_work"), help="keeps finished parts")
    parser.add_argument("--output", type=Path, default=COMMITTED)
    parser.add_argument("--labelled", type=int, default=2000, help="sentences that each classifier learns from")
    parser.add_argument("--classifier_steps", type=int, default=300)
    parser.add_argument("--sentences", type=int, default=100_000)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--likelihood_steps", type=int, default=600)
    parser.add_argument("--encoder_steps", type=int, default=200)
    parser.add_argument("--updates", type=int, default=200, help="of the discriminator, at most")
    parser.add_argument("--candidates", type=int, default=64, help="per sentence, at most")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.set_defaults(warmup_steps=1, steps=10)  # of adversarial training, of which there is none here
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    sizes = parsed_arguments(words)
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    left_out = ("work", "output", "seeds", "warmup_steps", "steps")
    settings = {name: value for name, value in vars(sizes).items() if name not in left_out}
    seeds = []
    for seed in sizes.seeds:
        result = Generation(Seed(seed, sizes), sizes).run()
        seeds.append(rounded({"seed": seed, **result, "settings": settings, "versions": versions()}))
        write_lines(sizes.output, seeds)
    print(generation_table(seeds, unsafe_share()))


if __name__ == "__main__":
    main()
