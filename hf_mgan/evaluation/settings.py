"""The settings of an evaluation, which its command line has too."""

from dataclasses import dataclass, field

from ..checks import (
    COUNT,
    FLAG,
    LEVEL,
    PLACE,
    POSITIVE,
    SEED,
    Check,
    Choice,
    Items,
    Text,
    check_fields,
    integer,
    optional,
)
from ..metrics.units import SPLITTERS, Unit


DTYPES = ("auto", "bfloat16", "float16", "half", "float32", "float", "float64", "double")
SETTINGS: dict[str, Check] = {
    "output_dir": Text(what="a folder", path=True),
    "num_samples": integer(3, advice="1000 are common."),
    "temperatures": Items(each=POSITIVE, several="a list of numbers greater than 0", least=1),
    "max_completion_length": COUNT,
    "batch_size": COUNT,
    "encoder": optional(PLACE),
    "fine_tuned_test": FLAG,
    "reverse_perplexity": FLAG,
    "unit": Choice(among=sorted(SPLITTERS)),
    "num_training_texts": COUNT,
    "baseline": Text(optional=True),
    "level": LEVEL,
    "dtype": Choice(among=DTYPES),
    "seed": SEED,
}


@dataclass
class EvaluationConfig:
    """Settings of [`evaluate_generator`].

    Args:
        output_dir (`str`, *optional*, defaults to `"evaluation"`): Folder of the report and of all that it is made of.
        num_samples (`int`, *optional*, defaults to 1000): Completions of each model at each temperature, at most half
            of the held-out texts: one half is what they are compared with, the other the row of real texts.
        temperatures (`list[float]`, *optional*, defaults to `[0.7, 0.8, 0.9, 1.0, 1.1]`): Temperatures of every model.
        max_completion_length (`int`, *optional*, defaults to 256): Tokens at which completions and real texts are cut;
            that of the training.
        batch_size (`int`, *optional*, defaults to 64): Texts per forward pass.
        encoder (`str`, *optional*): Id or folder of the encoder that is fine-tuned for the first two-sample test, and
            whose features are those of another test, MAUVE and Frechet distance; without it all four are left out. One
            that has the weights of the discriminator beside a model is refused.
        fine_tuned_test (`bool`, *optional*, defaults to `True`): Whether the encoder is fine-tuned, twice for each set
            of texts. That test decides the verdict, and takes longer than all else: 2 minutes of one CPU core for 1000
            sentences and all-MiniLM-L6-v2.
        reverse_perplexity (`bool`, *optional*, defaults to `True`): Whether a small model is trained on each set of
            texts.
        unit (`str`, *optional*, defaults to `"auto"`): What texts are counted in: `"word"`, `"character"`, or `"auto"`
            for words where spaces part them and characters of scripts that have none, such as Chinese; see
            [`~metrics.split_into_units`].
        num_training_texts (`int`, *optional*, defaults to 50000): Training texts that copies are looked for in, the
            first ones of a random order.
        baseline (`str`, *optional*): Name of the model that the others are compared with, the first by default.
        level (`float`, *optional*, defaults to 0.95): Level of all intervals and of the verdicts.
        dtype (`str`, *optional*, defaults to `"auto"`): Precision of the loaded generators; by default that of their
            files, and below adapters the quantisation of their training, which any other value leaves out.
        seed (`int`, *optional*, defaults to 0): Seed of the order of the real texts, the samples and the metrics.
    """

    output_dir: str = field(default="evaluation", metadata={"help": "Folder of the report."})
    num_samples: int = field(default=1000, metadata={"help": "Completions of each model at each temperature."})
    temperatures: list[float] = field(
        default_factory=lambda: [0.7, 0.8, 0.9, 1.0, 1.1], metadata={"help": "Temperatures of every model."}
    )
    max_completion_length: int = field(default=256, metadata={"help": "Tokens at which texts are cut."})
    batch_size: int = field(default=64, metadata={"help": "Texts per forward pass."})
    encoder: str | None = field(
        default=None, metadata={"help": "Encoder of two two-sample tests, MAUVE and Frechet distance."}
    )
    fine_tuned_test: bool = field(
        default=True, metadata={"help": "Whether the encoder is fine-tuned for the first two-sample test."}
    )
    reverse_perplexity: bool = field(default=True, metadata={"help": "Whether to train a small model on each set."})
    unit: Unit = field(
        default="auto", metadata={"help": "What texts are counted in; by default what their script asks for."}
    )
    num_training_texts: int = field(default=50_000, metadata={"help": "Training texts that copies are looked for in."})
    baseline: str | None = field(default=None, metadata={"help": "Model that the others are compared with."})
    level: float = field(default=0.95, metadata={"help": "Level of all intervals."})
    dtype: str = field(
        default="auto",
        metadata={"help": "Precision of the generators; `auto`: as they were saved, and quantised as trained."},
    )
    seed: int = field(default=0, metadata={"help": "Seed of the samples and of the metrics."})

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Check the settings, as they are when they are made and again when they are used.

        Raises:
            TypeError: If one is of another type.
            ValueError: If one is out of range.
        """
        check_fields(self, SETTINGS)
        if len(set(self.temperatures)) < len(self.temperatures):
            raise ValueError(f"temperatures must differ from one another, got {self.temperatures}.")
