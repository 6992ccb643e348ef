"""Penalties on the discriminator: pure functions that hold the size of its logits down.

Notation as in `losses`: `logit` is raw, higher means more real. Every penalty is at least 0, is added to the loss with
a coefficient of the caller's, is a scalar of dtype float32 whatever the dtype of its inputs, and is a mean over texts.
"""

from torch import Tensor


def logit_penalty(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Compute the mean square of the logits, real and generated texts with the same weight.

    P = 1/2 E_t[logit(t)^2] + 1/2 E_s[logit(G(s))^2]. On real texts it is the term against drift of Karras et al.
    2017, "Progressive growing of GANs for improved quality, stability, and variation"
    ([1710.10196](https://huggingface.co/papers/1710.10196), appendix A.1, coefficient 0.001); here it is on both kinds
    of text, so that undecided logits of 0 cost least.

    Args:
        real_logits (`Tensor` of shape `(R,)`): Logits of real texts.
        fake_logits (`Tensor` of shape `(B,)`): Logits of generated texts; R and B may differ.

    Returns:
        `Tensor` of shape `()`: [0, inf); c^2 where every logit is c or -c.

    Example:
        ```python
        >>> logit_penalty(torch.tensor([3.0, 3.0]), torch.tensor([-1.0]))
        tensor(5.)
        ```
    """
    return (real_logits.float().square().mean() + fake_logits.float().square().mean()) / 2
