"""The verdicts: from completions, and where the classifier reads them their prompts, to P(unsafe) of each."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..checks import COUNT, FLAG, LABEL, POSITIVE, Check, Instance, Number, checked, optional
from ..data.prompts import Text, plain_text
from ..models import load_processing_class
from .loading import load_trained_classifier, unsafe_label_index
from .windows import Windows


# From completions, or prompts and completions, to P(unsafe) or verdicts, one per completion.
Scorer: TypeAlias = Callable[..., Sequence[float | bool] | Tensor]
ARGUMENTS: dict[str, Check] = {
    "label": optional(LABEL),
    "threshold": Number(above=0, most=1, advice="It is the P(unsafe) to refuse from."),
    "margin": POSITIVE,
    "batch_size": COUNT,
    "max_length": optional(COUNT),
    "with_prompt": FLAG,
}
CLASSIFIER = Instance(
    of=(str, Path, PreTrainedModel, PeftModel),
    what=(
        "a SafetyGate, or what it takes: a Hub id, a folder, a sequence classifier, or a function (not async) from a "
        "list of completions to their probabilities of being unsafe"
    ),
    function=True,
)


class SafetyGate:
    """Tells safe completions from unsafe ones, with a frozen sequence classifier or a function.

    P(unsafe) is the softmax over the labels of a classifier; the sigmoid of the label's own logit where the classifier
    has one label, or says of itself that its labels do not exclude each other (`config.problem_type` is
    `"multi_label_classification"`). A text that is longer than the classifier can read is read in windows that
    overlap by half, and is as unsafe as the worst of them, so that nothing escapes by standing at the end.

    Args:
        classifier (`str`, `PreTrainedModel`, `PeftModel` or `Callable`): Hub id or folder of a trained sequence
            classifier; such a classifier, which is frozen and put into evaluation mode in place; or a function from a
            list of completions (with `with_prompt` from prompts and completions) to as many probabilities in [0, 1] or
            truth values, of being unsafe.
        label (`str` or `int`, *optional*): Which label means *unsafe*: name or index. Needed unless there is one only.
        threshold (`float`, *optional*, defaults to 0.5): Completions with P(unsafe) of at least this are unsafe. Lower
            is stricter: fewer unsafe texts pass, more safe ones are taken for unsafe.
        processing_class (`PreTrainedTokenizerBase`, *optional*): The classifier's tokenizer; loaded from where the
            model was loaded from by default.
        margin (`float`, *optional*, defaults to 2.0): By how much unsafe completions rank below safe ones, in units of
            the weighted reward. The default divides the unsafe rate of `benchmarks.safety` by more than ten with each
            of three seeds, and 1.0 by eight; a greater one takes more of the step from the discriminator.
        batch_size (`int`, *optional*, defaults to 32): Texts, or windows of texts, per forward pass.
        max_length (`int`, *optional*): Tokens of a window. The most the classifier can read by default.
        with_prompt (`bool`, *optional*, defaults to `False`): Whether the classifier sees the prompt: as the first of
            a pair of texts if its tokenizer knows pairs, else joined to the completion.

    Attributes:
        model (`PreTrainedModel` or `PeftModel`): The classifier; `None` for a function.
        label (`int`): Index of the label that means unsafe.
        device (`torch.device`): Where verdicts lie.

    Raises:
        TypeError: If `classifier`, `processing_class` or a value is of the wrong type.
        ValueError: If a value is out of range, the label is missing or unknown, or the classifier is not trained.

    Example:
        ```python
        >>> gate = SafetyGate(lambda completions: ["knife" in text for text in completions])
        >>> gate.is_unsafe(["", ""], ["a spoon", "a knife"])
        tensor([False,  True])
        ```
    """

    def __init__(
        self,
        classifier: str | PreTrainedModel | PeftModel | Scorer,
        label: str | int | None = None,
        threshold: float = 0.5,
        processing_class: PreTrainedTokenizerBase | None = None,
        margin: float = 2.0,
        batch_size: int = 32,
        max_length: int | None = None,
        with_prompt: bool = False,
    ) -> None:
        given = checked(ARGUMENTS, locals())
        self.threshold: float = given["threshold"]
        self.margin: float = given["margin"]
        self.batch_size: int = given["batch_size"]
        self.with_prompt: bool = given["with_prompt"]
        self.model: PreTrainedModel | PeftModel | None = None
        self.device = torch.device("cpu")
        if isinstance(classifier, (str, Path, PreTrainedModel, PeftModel)):
            self._set_model(classifier, label, processing_class, max_length)
        else:
            self._scorer = _checked_scorer(classifier, label, processing_class, max_length)

    def _set_model(
        self,
        classifier: str | Path | PreTrainedModel | PeftModel,
        label: str | int | None,
        processing_class: PreTrainedTokenizerBase | None,
        max_length: int | None,
    ) -> None:
        model = load_trained_classifier(str(classifier)) if isinstance(classifier, (str, Path)) else classifier
        base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        if "ForSequenceClassification" not in type(base).__name__:
            raise TypeError(
                f"The safety classifier must be a sequence classifier, got {type(base).__name__}. Anything else can "
                "be wrapped in a function from a list of completions to their probabilities of being unsafe."
            )
        self.label = unsafe_label_index(base.config, label)
        if processing_class is None:
            source = classifier if isinstance(classifier, (str, Path)) else base.config._name_or_path
            processing_class = load_processing_class(source, "safety classifier", "give processing_class=")
        self._windows = Windows(processing_class, model, max_length)
        self._is_sigmoid = base.config.num_labels == 1 or base.config.problem_type == "multi_label_classification"
        self.model = model.eval().requires_grad_(False)
        self.device = base.device

    def to(self, device: torch.device | str) -> "SafetyGate":
        """Move the classifier to a device; verdicts lie there from then on."""
        self.device = torch.device(device)
        if self.model is not None and not getattr(self.model, "is_quantized", False):  # placed when it is loaded
            self.model.to(self.device)  # type: ignore[arg-type]  # transformers' wrapper loses `self`
        return self

    def unsafe_probs(self, prompts: Sequence[Text], completions: Sequence[Text]) -> Tensor:
        """Compute P(unsafe) of each completion.

        Args:
            prompts (`Sequence[str or list[dict]]` of length B): Prompts; read with `with_prompt` alone.
            completions (`Sequence[str or list[dict]]` of length B): Completions as texts or messages.

        Returns:
            `Tensor` of shape `(B,)`: In [0, 1], float32, on `device`, without gradient.

        Raises:
            TypeError: If a function returns what are no numbers.
            ValueError: If there are more completions than prompts or fewer, or the classifier returns another number
                of values, or a value that is no probability.
        """
        if len(prompts) != len(completions):
            raise ValueError(f"One prompt per completion is needed, got {len(prompts)} and {len(completions)}.")
        texts = [plain_text(completion) for completion in completions]
        contexts = [plain_text(prompt) for prompt in prompts] if self.with_prompt else [""] * len(texts)
        if self.model is not None:
            probs = self._classify(contexts, texts)
        else:
            probs = _as_probs(self._scorer(contexts, texts) if self.with_prompt else self._scorer(texts), len(texts))
        if not ((probs >= 0) & (probs <= 1)).all():  # nan is not in the range either
            place = int((~((probs >= 0) & (probs <= 1))).nonzero()[0])
            raise ValueError(
                f"The safety classifier must give probabilities in [0, 1], got {probs[place].item()} for completion "
                f"{place}: {texts[place][:200]!r}."
            )
        return probs.to(self.device)

    def is_unsafe(self, prompts: Sequence[Text], completions: Sequence[Text]) -> Tensor:
        """Return the verdict on each completion, P(unsafe) >= threshold: bool, arguments as in `unsafe_probs`."""
        return self.unsafe_probs(prompts, completions) >= self.threshold

    @torch.no_grad()
    def _classify(self, prompts: list[str], texts: list[str]) -> Tensor:
        assert self.model is not None
        pairs = list(dict.fromkeys(zip(prompts, texts, strict=True)))  # equal texts are read once
        windows, owners = self._windows.split(pairs)
        probs = torch.zeros(len(pairs), device=self.device)
        for places, encoded in self._windows.batches(windows, self.batch_size):
            batch = encoded.to(self.device)
            with torch.autocast(self.device.type, enabled=False):
                logits = self.model(**batch).logits.float()  # Shape (windows, labels)
            of_label = (logits.sigmoid() if self._is_sigmoid else logits.softmax(1))[:, self.label]
            # The maximum over the windows of a text; that of nan is nan, which is an error later.
            index = torch.tensor([owners[place] for place in places], device=self.device)
            probs = probs.scatter_reduce(0, index, of_label, "amax")
        numbers = {pair: number for number, pair in enumerate(pairs)}
        return probs[[numbers[pair] for pair in zip(prompts, texts, strict=True)]]


def as_gate(name: str, given: Any) -> SafetyGate:
    """Return what tells unsafe texts as a gate, with its defaults where it is none yet.

    Args:
        name (`str`): Of the argument, for errors.
        given ([`SafetyGate`], `str`, `Path`, `PreTrainedModel`, `PeftModel` or `Callable`): A gate, or its classifier.

    Raises:
        TypeError: If it is nothing of these.
    """
    return given if isinstance(given, SafetyGate) else SafetyGate(CLASSIFIER(name, given))


def _checked_scorer(classifier: Any, label: Any, processing_class: Any, max_length: Any) -> Scorer:
    if not callable(classifier) or inspect.iscoroutinefunction(classifier):
        raise TypeError(
            "classifier must be a Hub id, a folder, a sequence classifier, or a function (not async) from a list of "
            f"completions to their probabilities of being unsafe, got {type(classifier).__name__}."
        )
    given = {"label": label, "processing_class": processing_class, "max_length": max_length}
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name} belongs to a sequence classifier, and this one is a function: leave it out.")
    return classifier


def _as_probs(values: Any, count: int) -> Tensor:
    try:
        probs = torch.as_tensor(values, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            "The safety function must return a sequence of numbers or truth values, one per completion, got "
            f"{type(values).__name__}: {error}."
        ) from error
    if probs.shape != (count,):
        raise ValueError(
            f"The safety function must return one value per completion: {count}, got values of shape "
            f"{tuple(probs.shape)}."
        )
    return probs.detach()
