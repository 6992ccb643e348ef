"""The logits of all processes in one batch: a loss of them is that of all texts, on whichever process they lie.

In: the logits of this process's texts. Out: those of all processes, in the order of the processes, the same on each.
DistributedDataParallel averages the gradients of the processes' own losses, which is the gradient of the whole batch
only where a loss is a mean over texts and every process has as many. `relativistic_average` has means within a
sigmoid; replayed texts need not divide evenly. A loss made of all logits at once is right whatever it is made of.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


def gathered(parts: tuple[Tensor, ...], group: dist.ProcessGroup) -> tuple[Tensor, ...]:
    """Put the logits of all processes together.

    Args:
        parts (`tuple[Tensor, ...]`): Logits of this process, of shape `(N,)` each, or `(N, T)` with prefixes. N may
            differ between parts and between processes, T between processes: a row that is shorter than the longest one
            repeats its last logit, as it does within a batch.
        group (`ProcessGroup`): The processes; each of them has to call this.

    Returns:
        `tuple[Tensor, ...]`: The parts of all processes. The gradient at a process's own logits is multiplied by the
            number of processes, since DistributedDataParallel divides by it; those of others take none.
    """
    rows = torch.cat(parts)
    columns = rows[:, None] if rows.dim() == 1 else rows
    own = torch.tensor([*map(len, parts), columns.size(1)], device=rows.device)
    shapes = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(shapes, own, group)
    *counts, widths = zip(*torch.stack(shapes).tolist(), strict=True)  # of each part on each process
    of_each = list(zip(*counts, strict=True))
    height, width = max(map(sum, of_each)), max(widths)
    repeated = columns[:, -1:].expand(-1, width - columns.size(1))
    padded = F.pad(torch.cat([columns, repeated], 1), (0, 0, 0, height - len(rows)))
    everywhere = _Gathered.apply(padded, group)  # Shape (processes, height, width)
    split = [values.split([*of, height - sum(of)]) for values, of in zip(everywhere, of_each, strict=True)]
    whole = [torch.cat(one) for one in list(zip(*split, strict=True))[:-1]]
    return tuple(values[:, 0] if rows.dim() == 1 else values for values in whole)


class _Gathered(torch.autograd.Function):
    """Stacks a tensor of all processes; backward hands each its own gradient, times the number of processes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.rank, ctx.size = dist.get_rank(group), dist.get_world_size(group)
        others = [torch.empty_like(values) for _ in range(ctx.size)]
        dist.all_gather(others, values.contiguous(), group)
        return torch.stack(others)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient[ctx.rank] * ctx.size, None
