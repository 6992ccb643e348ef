"""A second discriminator, which learns to tell from real texts what the first one keeps, and what both keep.

In: a run of `benchmarks.frontier` with its pool and the first one's log-ratios. Out: what the second one knows, and
rows of texts with test results.
"""

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from hf_mgan.decoding.selection import is_accepted, threshold_for
from hf_mgan.discriminator import calibrate
from hf_mgan.discriminator.calibration import LEAST_TEXTS
from hf_mgan.metrics import auc_interval, c2st, self_bleu

from ..discriminators.training import ENCODER, Condition, Sides, train
from ..sweep import do_stage
from .candidates import rows
from .tables import rejected_auc


if TYPE_CHECKING:
    from .stages import Run

DRAWS = 4.0  # per text that the second one learns from
EPOCHS = 2  # at most
HELD_OUT = 8  # an eighth of the texts to stop by, another to calibrate with, if there are as many real ones


def second_discriminator(run: "Run") -> dict[str, Any]:
    """Train it on the second half of the pool, and test what both discriminators keep of the first half.

    Args:
        run ([`Run`]): Its pool has log-ratios.

    Returns:
        `dict`: Texts of each side that the second one learnt from, its updates and calibration, its area of unseen
        real texts against what the first one keeps, and by name a row for each number of draws.

    Raises:
        ValueError: If the pool is too small.
    """
    arguments, pool, known = run.arguments, run.pool(), run.read("log_ratios")
    first, first_real = (torch.tensor(known[side], dtype=torch.float64) for side in ("pool", "real"))
    threshold, half = threshold_for(first, DRAWS), len(first) // 2
    noise = torch.rand(len(first), generator=torch.Generator().manual_seed(run.seed), dtype=torch.float64)
    accepted = is_accepted(first, noise, threshold)
    kept = [pool["texts"][half + place] for place in accepted[half:].nonzero()[:, 0].tolist()]
    validation = run.cut(run.validation["text"])
    count = min(len(validation) // 2, max(len(kept) // HELD_OUT, LEAST_TEXTS))
    if len(kept) <= 2 * count:
        raise ValueError(
            f"Of a pool of {len(first)} texts the first discriminator keeps {len(kept)} of the second half, which "
            f"leaves none to learn from beside {2 * count} to stop by and to calibrate with: raise --draws or --texts."
        )
    learnt = Sides(run.cut(run.train["text"]), kept[2 * count :])
    stopping = Sides(validation[:count], kept[:count])
    tested = Sides(validation[count : 2 * count] + run.real, kept[count : 2 * count] + pool["texts"][:half])
    condition, scored = Condition(ENCODER, len(learnt.generated)), run.folder / "second" / "scores.json"
    given = condition, learnt, stopping, tested, EPOCHS, run.folder, run.seed, run.device, arguments
    do_stage(scored, run.seed, partial(train, *given))
    trained = json.loads(scored.read_text())
    logits = [torch.tensor(side, dtype=torch.float64) for side in trained["scores"]]
    calibration = calibrate(
        *(side[:count] for side in logits),
        label=0,
        with_prompt=True,
        temperature=1.0,
        max_new_tokens=arguments.max_completion_length,
        previous_threshold=threshold,
        previous_draws=DRAWS,
    )
    real, candidates = (calibration.log_ratio(side[count:]) for side in logits)
    both_real = calibration.log_ratio(logits[0][count:], first_real)
    both = calibration.log_ratio(logits[1][count:], first[:half])
    cut = {"texts": pool["texts"][:half], "tokens": pool["tokens"][:half], "log_ratios": both.tolist()}
    made = {name: row for name, row in rows(cut, arguments.draws, run.seed).items() if row.threshold is not None}
    results = {}
    for name, row in made.items():
        done = run.folder / "second" / f"{name}.json"  # each takes minutes
        do_stage(done, run.seed, partial(run.fine_tuned_test, name, run.real, row.texts))
        slow, words = json.loads(done.read_text()), [text.split() for text in row.texts[: len(run.real)]]
        results[name] = {
            "draws": row.draws,
            "tokens": row.tokens,
            "fine_tuned_texts": slow["texts"],
            "fine_tuned_c2st_auc": slow["fine_tuned_c2st_auc"],
            "c2st_auc": list(c2st(run.real, row.texts[: len(run.real)], seed=run.seed).auc),
            "both_auc": rejected_auc(both_real, both, row.threshold),
            "words": sum(map(len, words)) / len(words),
            "self_bleu": self_bleu(words[: arguments.few_texts], 4),
        }
    return {
        "texts": len(learnt.generated),
        "updates": trained["updates"],
        "calibration": vars(calibration),
        "auc": list(auc_interval(real, candidates[accepted[:half]])),
        "rows": results,
    }
