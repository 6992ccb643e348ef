"""Replay: generated texts of earlier batches, which the discriminator meets again beside the new ones.

A discriminator that learns from the newest texts alone forgets what the generator did before, and the two go round in
circles. Showing it earlier texts again is the history of Shrivastava et al. 2017
([1612.07828](https://huggingface.co/papers/1612.07828), section 2.3).
"""

import json
import warnings
from collections import deque
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..checks import Number


REPLAY_FRACTION = Number(least=0, below=1)


class PastText(NamedTuple):
    """A generated text of an earlier batch, for a paired loss with the real text that it was compared with.

    Attributes:
        fake (`tuple[str, str]`): Its prompt, "" for none, and the completion.
        real (`tuple[str, str]`, *optional*): Prompt and text of the reference.
    """

    fake: tuple[str, str]
    real: tuple[str, str] | None = None


class Replay:
    """The newest of the past generated texts, first in, first out.

    Args:
        fraction (`float`): Which share of the generated texts of the loss they are, in [0, 1).
        size (`int`, *optional*, defaults to 2048): How many are kept, on each process.
        paired (`bool`, *optional*, defaults to `False`): Whether each is kept with its real text.
        seed (`int`, *optional*, defaults to 0): Of the draws, which touch no other generator.

    Attributes:
        texts (`deque[PastText]`): What is kept, the oldest first.
        num_draws (`int`): Draws so far; with the seed it determines the next one.
        share (`tuple[int, int]`): The place of this process among those that learn together, and their number.
    """

    def __init__(self, fraction: float, size: int = 2048, paired: bool = False, seed: int = 0) -> None:
        fraction = REPLAY_FRACTION("discriminator_replay_fraction", fraction)
        self.fraction, self.size, self.paired, self.seed = fraction, size, paired, seed
        self.texts: deque[PastText] = deque(maxlen=size)
        self.num_draws = 0
        self.share = 0, 1

    def add(
        self,
        prompts: Sequence[str],
        completions: Sequence[str],
        reference_prompts: Sequence[str],
        references: Sequence[str],
    ) -> None:
        """Keep the texts of a batch; what becomes too much goes, the oldest first."""
        fakes = zip(prompts, completions, strict=True)
        if not self.paired:
            self.texts.extend(PastText(fake) for fake in fakes)
            return
        reals = zip(reference_prompts, references, strict=True)
        self.texts.extend(PastText(fake, real) for fake, real in zip(fakes, reals, strict=True))

    def draw(self, count: int) -> list[PastText]:
        """Draw texts uniformly, none twice; all there are if they are fewer than `count`."""
        generator = torch.Generator().manual_seed(self.seed + self.num_draws)
        self.num_draws += 1
        places = torch.randperm(len(self.texts), generator=generator)[:count]
        return [self.texts[place] for place in places.tolist()]

    def draw_beside(self, num_new: int) -> list[PastText]:
        """Draw the share of this process of as many as make up `fraction` together with so many new texts on each."""
        rank, processes = self.share
        total = round(self.fraction / (1 - self.fraction) * num_new * processes)
        return self.draw(total * (rank + 1) // processes - total * rank // processes)

    def state_dict(self) -> dict[str, Any]:
        """Return texts and draws so far as JSON knows them."""
        texts = [[[*pair] for pair in text if pair is not None] for text in self.texts]
        return {"num_draws": self.num_draws, "paired": self.paired, "texts": texts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; of more texts than there is room for, the newest.

        Raises:
            ValueError: If the texts were kept with real texts and are wanted without, or the other way round.
        """
        if state["paired"] != self.paired:
            kept, wanted = ("with", "without") if state["paired"] else ("without", "with")
            raise ValueError(
                f"The past completions were saved {kept} references, and discriminator_loss takes them {wanted}. "
                "Resume with the loss of the run that saved them, or delete its replay files to start with none."
            )
        self.num_draws = state["num_draws"]
        self.texts.clear()
        self.texts.extend(PastText(*((prompt, text) for prompt, text in pairs)) for pairs in state["texts"])

    def save(self, folder: str | Path, rank: int) -> None:
        """Write the state of one process to `replay_{rank}.json` in `folder`, if there is replay."""
        if not self.fraction:
            return
        Path(folder).mkdir(parents=True, exist_ok=True)
        _file(folder, rank).write_text(json.dumps(self.state_dict()) + "\n")

    def load(self, folder: str | Path, rank: int, num_saved: int | None = None) -> None:
        """Restore what `save` wrote, if there is replay; without such a file start with no texts, and warn.

        Where other processes saved it than there are now, the texts of all of them are dealt out anew.

        Args:
            folder (`str` or `Path`): Where `save` wrote to.
            rank (`int`): This process.
            num_saved (`int`, *optional*): How many processes there were; as many as there are (`share`) by default.

        Raises:
            ValueError: If one of the two losses is paired and the other is not.
        """
        if not self.fraction:
            return
        num_processes = self.share[1]
        num_saved = num_saved or num_processes
        is_dealt_out = num_saved != num_processes
        ranks = range(num_saved) if is_dealt_out else [rank]
        paths = [_file(folder, one) for one in ranks]
        if missing := [path for path in paths if not path.exists()]:
            self.texts.clear()
            warnings.warn(
                f"{missing[0]} does not exist, so process {rank} starts without past completions to replay. It is "
                "written with every checkpoint of a run with discriminator_replay_fraction, by each of its processes.",
                stacklevel=2,
            )
            return
        states = [json.loads(path.read_text()) for path in paths]
        if is_dealt_out:
            # One text of each process after the other, so that the newest of all of them stay the newest.
            dealt = [text for texts in zip_longest(*(state["texts"] for state in states)) for text in texts if text]
            states[0] |= {"texts": dealt[rank::num_processes], "num_draws": max(one["num_draws"] for one in states)}
        self.load_state_dict(states[0])


def _file(folder: str | Path, rank: int) -> Path:
    return Path(folder) / f"replay_{rank}.json"
