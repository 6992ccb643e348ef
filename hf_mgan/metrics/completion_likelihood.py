"""What the generator's own density says about a text: how much less likely it has become since the game began.

Against a generator of density q the best discriminator has the logit log p(x) - log q(x), and half of that is known: a
language model can say how likely it finds a text. A classifier that has learnt log p(x) - log q_0(x), with q_0 the
generator at the start, therefore stays right while the generator moves if log q_0(x) - log q(x) is added to its logit.
It is the logit of noise-contrastive estimation (Gutmann and Hyvarinen 2010, "Noise-contrastive estimation: a new
estimation principle for unnormalized statistical models", equation 3), with the generator as the noise whose density
is known.
"""

from collections.abc import Sequence

import torch
from peft import PeftModel
from torch import Tensor, nn


def sequence_logps(
    model: nn.Module,
    prompt_ids: Sequence[list[int]],
    completion_ids: Sequence[list[int]],
    temperature: float = 1.0,
    batch_size: int | None = None,
) -> Tensor:
    """Compute log q(completion | prompt), summed over the tokens of each completion.

    Args:
        model (`nn.Module`): A causal language model.
        prompt_ids (`Sequence[list[int]]` of length B): Tokens of the prompts, at least one each.
        completion_ids (`Sequence[list[int]]` of length B): Tokens of the completions, with the end token where there
            is one.
        temperature (`float`, *optional*, defaults to 1.0): Temperature at which the model is sampled.
        batch_size (`int`, *optional*): Sequences a forward pass; all of them by default.

    Returns:
        `Tensor` of shape `(B,)`: In nats, float32, without gradient.
    """
    return tempered_logps(model, prompt_ids, completion_ids, [temperature], batch_size)[0]


def tempered_logps(
    model: nn.Module,
    prompt_ids: Sequence[list[int]],
    completion_ids: Sequence[list[int]],
    temperatures: Sequence[float],
    batch_size: int | None = None,
) -> Tensor:
    """Compute what [`sequence_logps`] does at several temperatures, in the forward passes of one.

    Args:
        model (`nn.Module`): A causal language model.
        prompt_ids (`Sequence[list[int]]` of length B): Tokens of the prompts, at least one each.
        completion_ids (`Sequence[list[int]]` of length B): Tokens of the completions.
        temperatures (`Sequence[float]` of length T): Temperatures at which the model is sampled.
        batch_size (`int`, *optional*): Sequences a forward pass; all of them by default.

    Returns:
        `Tensor` of shape `(T, B)`: In nats, float32, without gradient.
    """
    device = next(model.parameters()).device
    size = batch_size or len(prompt_ids)
    pairs = list(zip(prompt_ids, completion_ids, strict=True))
    # Sequences of one length stand together, so that little is padded.
    order = sorted(range(len(pairs)), key=lambda place: sum(map(len, pairs[place])))
    totals = torch.empty(len(temperatures), len(pairs), device=device)
    for start in range(0, len(order), size):
        places = order[start : start + size]
        rows = [torch.tensor([*pairs[place][0], *pairs[place][1]]) for place in places]
        # What stands in the padding is of no consequence: it is on the right, where causal attention never looks.
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
        width = torch.arange(ids.size(1))
        ends = torch.tensor([len(row) for row in rows])[:, None]
        starts = torch.tensor([len(pairs[place][0]) for place in places])[:, None]
        is_completion = ((width >= starts) & (width < ends)).to(device)
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=(width < ends).long().to(device)).logits[:, :-1].float()
        for row, temperature in enumerate(temperatures):
            logps = (logits / temperature).log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)
            totals[row, places] = logps.masked_fill(~is_completion[:, 1:], 0).sum(1)
    return totals


def log_density_drop(
    model: PeftModel,
    prompt_ids: Sequence[list[int]],
    completion_ids: Sequence[list[int]],
    temperature: float = 1.0,
    batch_size: int | None = None,
) -> Tensor:
    """Compute log q_0(x) - log q(x), where q_0 is the model without its adapters.

    Args:
        model (`PeftModel`): The generator, with adapters that changed nothing when the game began.
        prompt_ids (`Sequence[list[int]]` of length B): Tokens of the prompts, as in [`sequence_logps`].
        completion_ids (`Sequence[list[int]]` of length B): Tokens of the completions, as there.
        temperature (`float`, *optional*, defaults to 1.0): Temperature at which the model is sampled.
        batch_size (`int`, *optional*): Sequences a forward pass; all of them by default.

    Returns:
        `Tensor` of shape `(B,)`: In nats; 0 before the first step.
    """
    training = model.training
    model.eval()
    now = sequence_logps(model, prompt_ids, completion_ids, temperature, batch_size)
    with model.disable_adapter():
        at_start = sequence_logps(model, prompt_ids, completion_ids, temperature, batch_size)
    model.train(training)
    return at_start - now
