"""The generators of `benchmarks.language_frontier`, of one seed, each with a discriminator of its own.

In: sizes and a seed. Out: for each generator a folder with both models, and what they are like, alone and together.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property, partial
from typing import Any

from peft import PeftModel
from transformers import GPTNeoForCausalLM, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from hf_mgan import AdversarialConfig, AdversarialTrainer, Discriminator
from hf_mgan.decoding import DecodingConfig, guided_sample
from hf_mgan.demo.guidance import caught_up, dataset_of, held_out_sentences
from hf_mgan.demo.models import MAX_TOKENS, adapters, make_tokenizer, train_encoder, train_generator
from hf_mgan.demo.parts import Parts, adversarial_config
from hf_mgan.demo.run import DemoArguments

from ..for_rejection import ForFourDrawsTrainer, ForRejectionTrainer
from ..sweep import do_stage


LIKELIHOOD, ADVERSARIAL, SHORT, FOR_TWO, FOR_FOUR, DISTILLED, TWICE = GENERATORS = (
    "likelihood",
    "adversarial",
    "adversarial_short",
    "for_2_draws",
    "for_4_draws",
    "distilled",
    "distilled_twice",
)
# Of rejection, in nats: from where hardly anything is rejected to where hardly anything is kept.
THRESHOLDS = (-8.0, -6.0, -4.0, -3.0, -2.0, *(quarter / 4 for quarter in range(-6, 15)))
TAUGHT_AT = 0.0  # threshold of the sentences that the distilled generators learn from: about two draws
SHORTER = 4  # times fewer steps of "adversarial_short"
ENCODER = "encoder"


class Generators:
    """All generators of a seed.

    Args:
        sizes (`DemoArguments`): How much of everything, as in the demo; `output_dir` is where the models lie.
        seed (`int`): Seed of sentences, weights and samples.
    """

    def __init__(self, sizes: DemoArguments, seed: int) -> None:
        self.sizes, self.seed = sizes, seed
        self.parts = Parts(sizes, seed)
        self.folder = self.parts.folder

    def do(self, names: list[str]) -> None:
        """Train and measure the generators that are not done, and those that they go on from."""
        needed = {LIKELIHOOD, *names, *([DISTILLED] if TWICE in names else [])}
        do_stage(self.folder / f"{ENCODER}.json", self.seed, self._encoder)
        for name in (one for one in GENERATORS if one in needed):
            do_stage(self.folder / f"{name}.json", self.seed, partial(self._of, name))

    def _encoder(self) -> dict[str, Any]:
        """Train the encoder that all discriminators start from."""
        tokenizer = make_tokenizer(self.parts.language.words, adds_ends=True)
        given = self.sizes.encoder_steps, self.sizes.batch_size, self.seed, TrainerCallback()
        train_encoder(self.parts.sentences, tokenizer, self.folder / ENCODER, *given)
        return {}

    def _of(self, name: str) -> dict[str, Any]:
        """Train a generator, then its discriminator, and measure the generator, both, and it with a perfect one."""
        model, metrics = self._trained(name), self.parts.metrics
        discriminator = caught_up(
            self.folder / ENCODER,
            model,
            self.parts.tokenizer,
            self._sentences,
            held_out_sentences(self.parts.language, self.seed),
            self._config(name),
            self.sizes.final_steps,
            lambda update: None,
        )
        discriminator.save_pretrained(self.folder / name / "discriminator")
        assert discriminator.calibration is not None
        return {
            "alone": asdict(metrics(model)),
            "with_its_own": [asdict(one) for one in metrics.guided(model, discriminator, THRESHOLDS)],
            "with_a_perfect_one": [asdict(one) for one in metrics.guided(model, None, THRESHOLDS)],
            "calibration": asdict(discriminator.calibration),
        }

    def _trained(self, name: str) -> Any:
        """Train a generator; all but the first go on from it or from one that does."""
        makes: dict[str, Callable[[], Any]] = {
            LIKELIHOOD: lambda: self.parts.likelihood(LIKELIHOOD, TrainerCallback()),
            ADVERSARIAL: partial(self._adversarial, ADVERSARIAL),
            SHORT: partial(self._adversarial, SHORT, max_steps=max(self.sizes.steps // SHORTER, 1)),
            FOR_TWO: partial(self._adversarial, FOR_TWO, ForRejectionTrainer, discriminator_reward="logit"),
            FOR_FOUR: partial(self._adversarial, FOR_FOUR, ForFourDrawsTrainer, discriminator_reward="logit"),
            DISTILLED: partial(self._distilled, DISTILLED, LIKELIHOOD),
            TWICE: partial(self._distilled, TWICE, DISTILLED),
        }
        return makes[name]()

    def _adversarial(
        self, name: str, trainer_class: type[AdversarialTrainer] = AdversarialTrainer, **settings: Any
    ) -> PeftModel:
        trainer = trainer_class(
            model=str(self.folder / LIKELIHOOD),
            discriminator=str(self.folder / ENCODER),
            # TRL fills in one of these two from the other, and refuses both.
            args=replace(self._config(name), generation_batch_size=None, **settings),
            train_dataset=self._sentences,
            peft_config=adapters(),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        assert isinstance(trainer.model, PeftModel)
        return trainer.model

    def _distilled(self, name: str, teacher: str) -> Any:
        """Let a generator go on with as many sentences as it learnt from, of itself and its discriminator."""
        model = self._loaded(teacher)
        discriminator = Discriminator.from_pretrained(self.folder / teacher / "discriminator")
        how: dict[str, Any] = {"max_new_tokens": MAX_TOKENS, "batch_size": 500, "seed": self.seed + 1}
        config = DecodingConfig(threshold=TAUGHT_AT, num_candidates=16, **how)
        prompts = [[self.parts.tokenizer.bos_token_id]] * self.sizes.sentences
        texts = guided_sample(model, self.parts.tokenizer, discriminator, prompts, config).texts
        sizes, accepted = self.sizes, [text for text in texts if text]
        given = self.folder / name, sizes.likelihood_steps, sizes.batch_size, self.seed, TrainerCallback()
        return train_generator(accepted, self.parts.tokenizer, *given, start=model)

    def _loaded(self, name: str) -> Any:
        return GPTNeoForCausalLM.from_pretrained(self.folder / name)

    def _config(self, name: str) -> AdversarialConfig:
        return adversarial_config(self.sizes, self.folder / name, self.seed)

    @cached_property
    def _sentences(self) -> Any:
        return dataset_of(self.parts.sentences)
