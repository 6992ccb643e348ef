"""Guided sampling: a generator and its discriminator together, from prompts to texts that are nearer to real ones.

In: both models and prompts. Out: [`GuidedSamples`], texts with what they cost. The candidates are the generator's own
samples, drawn and decoded by [`sample`]; the discriminator reads them as it does in training; a rule of
[`~decoding.selection`] keeps one per prompt. Rejection draws round by round and stops where a prompt has its text;
[`~decoding.token_rejection`] rejects single tokens of texts in the making.
"""

import statistics
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor

from ..checks import Instance
from ..data.prompts import Text, as_prompts
from ..data.text_path import TextPath, shown_texts, with_boundary
from ..discriminator import Discriminator
from ..metrics.likelihood import tempered_logps
from ..models import evaluation_mode
from .prefix_reading import PrefixReader
from .sampling import Samples, check_room, encode_prompts, end_tokens, sample
from .selection import METHODS, Choice, is_accepted
from .settings import DecodingConfig
from .token_rejection import TokenRejection


if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# From prompts and completions, both as plain texts, to whether each may be kept.
Filter: TypeAlias = Callable[[list[str], list[str]], Sequence[bool] | Tensor]
ROUND = 1_000_003  # between the seeds of two rounds; the first has the seed itself
CHOICE = 500_009  # from the seed of the texts to that of the choice, which would otherwise share random numbers
READ_OTHERWISE = 0.05  # share of texts whose tokens may differ from those of training before a warning says so
CONFIG = Instance(of=(DecodingConfig,), what="a DecodingConfig", optional=True)
PROBES = 64  # candidates by which the shift of another temperature is measured


class GuidedSamples(NamedTuple):
    """Texts of a generator and its discriminator, one per prompt.

    Args:
        texts (`list[str or None]` of length N): As [`Samples`] has them; None where the filter refused all candidates.
        prompt_ids (`list[list[int]]` of length N): Tokens of each prompt.
        completion_ids (`list[list[int]]` of length N): Tokens of each completion, with the end token where the
            generator ended by itself.
        log_ratios (`list[float]` of length N): log p - log q of each text by the discriminator, in nats; 0 without
            one, nan where there is no text.
        tries (`list[int]` of length N): Candidates drawn for each; of `"token_rejection"` texts begun.
        accepted (`list[bool]` of length N): False where the bound on the tries was met.
        tokens (`list[int]` of length N): Tokens drawn for each, those of rejected candidates included.
    """

    texts: list[str | None]
    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    log_ratios: list[float]
    tries: list[int]
    accepted: list[bool]
    tokens: list[int]

    @property
    def num_kept(self) -> int:
        """Prompts that have a text."""
        return sum(text is not None for text in self.texts)

    @property
    def draws(self) -> float:
        """Candidates drawn per text kept: 1 for plain sampling; inf where nothing was kept."""
        return sum(self.tries) / self.num_kept if self.num_kept else float("inf")

    @property
    def tokens_per_text(self) -> float:
        """Tokens drawn per text kept, those of rejected candidates included; inf where nothing was kept."""
        return sum(self.tokens) / self.num_kept if self.num_kept else float("inf")

    @property
    def num_exhausted(self) -> int:
        """Texts at which the bound on the tries was met."""
        return self.accepted.count(False)


@torch.no_grad()
def guided_sample(
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    discriminator: Discriminator | None,
    prompts: Sequence[Text | list[int]],
    config: DecodingConfig | None = None,
    keep: Filter | None = None,
    on_text: Callable[[int], None] | None = None,
) -> GuidedSamples:
    """Draw a text for each prompt from a generator that its discriminator corrects.

    Args:
        model (`PreTrainedModel` or `PeftModel`): The generator.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        discriminator ([`Discriminator`], *optional*): Its discriminator, at best caught up on this generator and
            calibrated ([`~training.fit_discriminator`]). Without one the filter alone decides.
        prompts (`Sequence[str, list[dict] or list[int]]` of length N): Prompts as [`prepare_dataset`] makes them.
        config ([`DecodingConfig`], *optional*): Settings.
        keep (`Callable`, *optional*): A hard filter: from prompts and completions, both as plain texts, to as many
            truth values. What it refuses is never returned.
        on_text (`Callable`, *optional*): Called with the number of texts that have been found since the last call.

    Returns:
        [`GuidedSamples`]: In the order of the prompts.

    Raises:
        TypeError: If `config` or a setting is of another type.
        ValueError: If there is no prompt, a setting is out of range or has no effect, the filter returns another
            number of values, or the discriminator cannot read token by token where it has to.

    Warns:
        UserWarning: If the discriminator is not calibrated, or was trained on another distribution than is sampled
            here (with the measured shift of its log-ratio), or if tries were exhausted.
    """
    CONFIG("config", config)
    config = (config or DecodingConfig()).completed(discriminator.calibration if discriminator else None)
    config.check()
    if not prompts:
        raise ValueError("There is no prompt: give at least one; a text without a prompt starts from the start token.")
    if discriminator is None and config.threshold:
        raise ValueError(
            f"threshold={config.threshold:g} has no effect without a discriminator, whose log-ratio it is compared "
            "with. Give one, or leave it out."
        )
    _check_calibration(discriminator, config)
    prompt_ids = encode_prompts(prompts, tokenizer)
    plain = _plain_prompts(prompts, tokenizer)
    if config.method == "token_rejection":
        reader = PrefixReader(discriminator, tokenizer, end_tokens(model, tokenizer))
        with evaluation_mode(model):
            kept = _token_by_token(model, tokenizer, reader, prompt_ids, plain, config, keep, on_text)
        if kept.num_kept:
            _check_temperature(model, discriminator, kept, config)
        _check_tokens(kept, reader.shown(plain), reader, config)
        return kept
    chance = torch.Generator().manual_seed(config.seed + CHOICE)
    uniforms = torch.rand(len(prompts), config.num_candidates, generator=chance, dtype=torch.float64)
    ratios = torch.full_like(uniforms, -torch.inf)
    candidates: list[list[list[int]]] = [[] for _ in prompts]
    texts: list[list[str]] = [[] for _ in prompts]
    pending, tried, number, num_drawn, num_accepted = list(range(len(prompts))), 0, 0, 0, 0
    while pending and tried < config.num_candidates:
        at_once = config.num_candidates
        if config.method == "rejection":
            # Few prompts that still wait for a text draw several candidates at once, as many as one text has taken so
            # far and as a batch has room for: small batches cost nearly as much as full ones.
            taken = round((num_drawn + 1) / (num_accepted + 1))
            at_once = max(1, min(taken, config.batch_size // len(pending)))
        until = min(tried + at_once, config.num_candidates)
        owners = [place for place in pending for _ in range(tried, until)]
        drawn = _draw(model, tokenizer, [prompt_ids[place] for place in owners], config, number)
        if number == 0:
            _check_temperature(model, discriminator, drawn, config)
        found = _log_ratios(discriminator, [plain[place] for place in owners], drawn.texts, config, keep)
        for place, text, ids, ratio in zip(owners, drawn.texts, drawn.completion_ids, found, strict=True):
            ratios[place, len(texts[place])] = ratio
            texts[place].append(text)
            candidates[place].append(ids)
        accepted = is_accepted(ratios[pending, tried:until], uniforms[pending, tried:until], config.threshold)
        num_drawn, num_accepted = num_drawn + accepted.numel(), num_accepted + int(accepted.sum())
        before, tried, number = len(pending), until, number + 1
        pending = [place for place, found in zip(pending, accepted.any(1).tolist(), strict=True) if not found]
        if on_text is not None:
            on_text(before - (len(pending) if tried < config.num_candidates else 0))
    choice = METHODS[config.method](ratios, uniforms, config.threshold)
    _check_exhausted(choice, config)
    rows = list(enumerate(choice.kept.tolist()))
    return GuidedSamples(
        texts=[texts[place][at] if at >= 0 else None for place, at in rows],
        prompt_ids=prompt_ids,
        completion_ids=[candidates[place][at] if at >= 0 else [] for place, at in rows],
        log_ratios=[ratios[place, at].item() if at >= 0 else float("nan") for place, at in rows],
        tries=[len(row) for row in candidates],
        accepted=choice.accepted.tolist(),
        tokens=[sum(map(len, row)) for row in candidates],
    )


def _token_by_token(
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    reader: PrefixReader,
    prompt_ids: list[list[int]],
    plain: list[str],
    config: DecodingConfig,
    keep: Filter | None,
    on_text: Callable[[int], None] | None,
) -> GuidedSamples:
    """Draw texts by [`TokenRejection`], anew where one is abandoned or refused by the filter."""
    shown = reader.shown(plain)
    check_room(model, prompt_ids, config.max_new_tokens)
    reader.check_room(shown, config.max_new_tokens)
    draw, path = (
        TokenRejection(model, tokenizer, reader, config),
        TextPath(tokenizer, end_ids=end_tokens(model, tokenizer)),
    )
    count, nan = len(prompt_ids), float("nan")
    found = GuidedSamples(
        [None] * count,
        prompt_ids,
        [[] for _ in range(count)],
        [nan] * count,
        [0] * count,
        [False] * count,
        [0] * count,
    )
    # Prompts of one length stand together, so that little is padded.
    pending = sorted(range(count), key=lambda place: len(prompt_ids[place]))
    for number in range(config.num_candidates):
        is_last, again = number == config.num_candidates - 1, []
        for start in range(0, len(pending), config.batch_size):
            places = pending[start : start + config.batch_size]
            drawn = draw([prompt_ids[at] for at in places], [shown[at] for at in places], abandons=not is_last)
            is_whole = [is_last or accepted for accepted in drawn.accepted]
            whole = [row for row, given in enumerate(is_whole) if given]
            texts = path.decode(
                [prompt_ids[places[row]] for row in whole], [drawn.completion_ids[row] for row in whole]
            )
            passes = _passes(keep, [plain[places[row]] for row in whole], texts).tolist()
            kept = {row: text for row, text, passed in zip(whole, texts, passes, strict=True) if passed}
            for row, place in enumerate(places):
                found.tries[place] += 1
                found.tokens[place] += drawn.tokens[row]
                if row not in kept:
                    again.append(place)
                    continue
                found.texts[place], found.completion_ids[place] = kept[row], drawn.completion_ids[row]
                found.log_ratios[place], found.accepted[place] = drawn.log_ratios[row], drawn.accepted[row]
            if on_text is not None:
                on_text(len(places) if is_last else len(kept))
        pending = again
        if not pending:
            break
    return found


def _draw(
    model: "PreTrainedModel | PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompt_ids: list[list[int]],
    config: DecodingConfig,
    number: int,
) -> Samples:
    return sample(
        model,
        tokenizer,
        prompt_ids,
        config.max_new_tokens,
        config.temperature,
        config.seed + number * ROUND,
        config.batch_size,
        generation_kwargs=config.generation_kwargs,
    )


def _plain_prompts(prompts: Sequence[Text | list[int]], tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Return prompts as a discriminator reads them that was shown prompts."""
    texts: list[Any] = [
        tokenizer.decode(cast("list[int]", prompt), skip_special_tokens=True) if _is_encoded(prompt) else prompt
        for prompt in prompts
    ]
    return as_prompts(texts, tokenizer)


def _is_encoded(prompt: Text | list[int]) -> bool:
    return not isinstance(prompt, str) and all(isinstance(part, int) for part in prompt)


def _log_ratios(
    discriminator: Discriminator | None,
    prompts: list[str],
    texts: list[str],
    config: DecodingConfig,
    keep: Filter | None,
) -> Tensor:
    """Return log-ratios of shape (B,), float64 on the CPU, -inf for what the filter refuses."""
    ratios = torch.full((len(texts),), -torch.inf, dtype=torch.float64)
    places = _passes(keep, prompts, texts).nonzero()[:, 0].tolist()
    if discriminator is None:
        ratios[places] = 0.0
        return ratios
    prompts, texts = _shown(discriminator, prompts, texts)
    # Texts of one length stand together, so that little is padded.
    places.sort(key=lambda place: len(prompts[place]) + len(texts[place]))
    for start in range(0, len(places), config.batch_size):
        batch = places[start : start + config.batch_size]
        values = discriminator.log_ratio([prompts[place] for place in batch], [texts[place] for place in batch])
        ratios[batch] = values.double().cpu()
    return ratios


def _shown(discriminator: Discriminator, prompts: list[str], texts: list[str]) -> tuple[list[str], list[str]]:
    """Return prompts and completions as the discriminator was shown them when it was calibrated."""
    calibration = discriminator.calibration
    if calibration is None:
        return prompts, texts
    return shown_texts(
        prompts, with_boundary(texts, calibration.boundary), calibration.with_prompt, calibration.are_whole
    )


def _passes(keep: Filter | None, prompts: list[str], texts: list[str]) -> Tensor:
    """Return which texts the filter lets pass, bool of shape (B,) on the CPU."""
    if keep is None:
        return torch.ones(len(texts), dtype=torch.bool)
    passes = torch.as_tensor(keep(prompts, texts), dtype=torch.bool).cpu()
    if passes.shape != (len(texts),):
        raise ValueError(
            f"The filter must return a truth value for each of {len(texts)} completions, got values of shape "
            f"{tuple(passes.shape)}."
        )
    return passes


def _check_calibration(discriminator: Discriminator | None, config: DecodingConfig) -> None:
    if discriminator is None or config.method == "best_of_k":  # the order of the candidates needs none
        return
    calibration = discriminator.calibration
    if calibration is None:
        warnings.warn(
            "The discriminator is not calibrated: its logit is taken for the log-ratio as it is. Let it catch up on "
            "this generator (discriminator_final_steps, or fit_discriminator), or use best_of_k, which needs no "
            "calibration.",
            stacklevel=4,
        )
        return
    given = dict(config.generation_kwargs or {})
    if given != calibration.generation_kwargs or config.max_new_tokens != calibration.max_new_tokens:
        warnings.warn(
            f"The discriminator is calibrated for texts of at most {calibration.max_new_tokens} tokens, drawn with "
            f"{calibration.generation_kwargs}, and is asked about texts of at most {config.max_new_tokens}, drawn "
            f"with {given}: its log-ratio is that of another distribution. Use those, or calibrate it anew.",
            stacklevel=4,
        )


def _check_temperature(
    model: "PreTrainedModel | PeftModel",
    discriminator: Discriminator | None,
    drawn: Samples | GuidedSamples,
    config: DecodingConfig,
) -> None:
    """Warn if the discriminator was calibrated at another temperature, and measure how far its log-ratio is off."""
    calibration = discriminator.calibration if discriminator is not None else None
    if calibration is None or calibration.temperature == config.temperature:
        return
    pairs = [pair for pair in zip(drawn.prompt_ids, drawn.completion_ids, strict=True) if pair[1]][:PROBES]
    both = [calibration.temperature, config.temperature]
    theirs, ours = tempered_logps(model, [pair[0] for pair in pairs], [pair[1] for pair in pairs], both)
    shifts = (ours - theirs).tolist()
    deviation = statistics.stdev(shifts) if len(shifts) > 1 else 0.0
    warnings.warn(
        f"The discriminator is calibrated for texts drawn at temperature {calibration.temperature:g}, and they are "
        f"drawn at {config.temperature:g}: its log-ratio is off by {statistics.fmean(shifts):+.2f} nats on average, "
        f"with a deviation of {deviation:.2f} from text to text (measured on {len(shifts)} candidates). Use its "
        "temperature, or calibrate it anew.",
        stacklevel=4,
    )


def _check_tokens(found: GuidedSamples, shown: list[str], reader: PrefixReader, config: DecodingConfig) -> None:
    """Warn where a text was not accepted token by token, or the discriminator read it in unfamiliar tokens."""
    count, refused = found.num_exhausted, len(found.texts) - found.num_kept
    if count:
        warnings.warn(
            f"{count} of {len(found.texts)} prompts have no accepted text after {config.num_candidates} tries: "
            f"{refused} of them none at all, since the filter refused it, the others one with a token that was not "
            f"accepted in {config.num_candidates} draws. Raise num_candidates, or lower threshold.",
            stacklevel=3,
        )
    rows = [row for row in zip(shown, found.texts, found.completion_ids, strict=True) if row[1] is not None]
    differing = reader.num_read_otherwise(rows) if rows else 0
    if differing > READ_OTHERWISE * len(rows):
        warnings.warn(
            f"The discriminator read {differing} of {len(rows)} texts in other tokens than in training, where prompt "
            "and completion are encoded as one text: the generator does not write the tokens that its tokenizer makes "
            "of it. Use rejection, which reads whole texts.",
            stacklevel=3,
        )


def _check_exhausted(choice: Choice, config: DecodingConfig) -> None:
    count, refused = int((~choice.accepted).sum()), int((choice.kept < 0).sum())
    if count:
        warnings.warn(
            f"{count} of {len(choice.accepted)} prompts have no accepted text after {config.num_candidates} tries: "
            f"{refused} of them none at all, since the filter refused every candidate, the others one of the "
            "candidates, drawn by its log-ratio. Raise num_candidates, or lower threshold.",
            stacklevel=4,
        )
