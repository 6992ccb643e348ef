"""Penalties on the discriminator: pure functions that hold the size or the slope of its logits down.

Notation as in `losses`: `logit` is raw, higher means more real. Every penalty is at least 0, is added to the loss with
a coefficient of the caller's, is a scalar of dtype float32 whatever the dtype of its inputs, and is a mean over texts.

The slope is that of the logit with respect to the embeddings of the text, since tokens have no slope. There are two
ways to it: `gradient_penalty` is exact, and differentiates a gradient; `noise_penalty` needs no more than one further
forward pass, and tends to the same value, so that the two share one coefficient.
"""

from torch import Tensor


def logit_penalty(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Compute the mean square of the logits, both sides with the same weight.

    P = 1/2 E_t[logit(t)^2] + 1/2 E_s[logit(G(s))^2]. On the real side it is the term against drift of Karras et al.
    2017, "Progressive growing of GANs for improved quality, stability, and variation"
    ([1710.10196](https://huggingface.co/papers/1710.10196), appendix A.1, coefficient 0.001); here it is on both
    sides, so that undecided logits of 0 cost least.

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


def gradient_penalty(gradients: Tensor, mask: Tensor) -> Tensor:
    """Compute the squared slope of the logit, from its gradient with respect to the embeddings.

    P = 1/2 E[|d logit / d embeddings|^2], the norm over all tokens of a text. With real texts it is R1, equation 9 of
    Mescheder et al. 2018, "Which training methods for GANs do actually converge?"
    ([1801.04406](https://huggingface.co/papers/1801.04406)), whose coefficient gamma is left to the caller; with
    generated texts it is R2, equation 10.

    Args:
        gradients (`Tensor` of shape `(B, T, E)`): Gradient of the logit of each text with respect to the embeddings of
            its tokens, with its graph where the penalty is to be differentiated.
        mask (`Tensor` of shape `(B, T)`): 1 (or `True`) for a token that counts, 0 for padding. The gradient of
            padding is left out whatever it is.

    Returns:
        `Tensor` of shape `()`: [0, inf); 0 for a discriminator that is flat around the texts.

    Raises:
        ValueError: If the mask is not of the shape of the tokens.

    Example:
        ```python
        >>> embeddings = torch.tensor([[[3.0], [4.0]]], requires_grad=True)  # one text of two tokens
        >>> logits = embeddings.square().sum((1, 2)) / 2  # whose gradient is the embedding itself
        >>> (gradients,) = torch.autograd.grad(logits.sum(), embeddings, create_graph=True)
        >>> gradient_penalty(gradients, torch.ones(1, 2)).item()
        12.5
        ```
    """
    if gradients.shape[:-1] != mask.shape:
        raise ValueError(
            f"gradient_penalty takes gradients of shape (B, T, E) and a mask of shape (B, T), got "
            f"{tuple(gradients.shape)} and {tuple(mask.shape)}. Give the attention mask of the same texts."
        )
    of_tokens = gradients.float().masked_fill(mask.unsqueeze(-1) == 0, 0.0)
    return of_tokens.square().sum((1, 2)).mean() / 2


def noise_penalty(logits: Tensor, noisy_logits: Tensor, sigma: float) -> Tensor:
    """Compute the squared slope of the logit, from what noise on the embeddings does to it.

    P = 1/2 E[((logit(e + sigma n) - logit(e)) / sigma)^2], e the embeddings and n standard Gaussian noise on each of
    their elements. As sigma goes to 0 its expectation over the noise goes to `gradient_penalty` of the same texts,
    since E[(g n)^2] = |g|^2, and no gradient has to be differentiated. It is the approximated R1 of Lin et al. 2025,
    "Diffusion adversarial post-training for one-step video generation"
    ([2501.08316](https://huggingface.co/papers/2501.08316)), who do not divide by sigma^2; with the division the
    coefficient means the same for both penalties and for every sigma.

    One draw of the noise is coarse: for a logit that is linear in the embeddings, the penalty of a text deviates by
    sqrt(2) times its mean. The rounding error of the logits is divided by sigma as well, and it is the noise that must
    change them more: a logit in bfloat16 is off by up to 1/512 of itself, and by more if all of the forward pass runs
    in bfloat16.

    Args:
        logits (`Tensor` of shape `(B,)`): Logits of the texts.
        noisy_logits (`Tensor` of shape `(B,)`): Logits of the same texts, in the same order, with the noise.
        sigma (`float`): Standard deviation of the noise, greater than 0.

    Returns:
        `Tensor` of shape `()`: [0, inf); 0 where the noise changes nothing.

    Raises:
        ValueError: If the two passes are not of the same texts, or `sigma` is not greater than 0.

    Example:
        ```python
        >>> noise_penalty(torch.tensor([1.0]), torch.tensor([2.0]), sigma=0.5)
        tensor(2.)
        ```
    """
    if not sigma > 0:
        raise ValueError(f"sigma is the standard deviation of the noise and must be greater than 0, got {sigma}.")
    if logits.shape != noisy_logits.shape:
        raise ValueError(
            f"noise_penalty compares each text with itself under noise, but got {tuple(logits.shape)} logits and "
            f"{tuple(noisy_logits.shape)} with noise. Give the logits of the same texts, in the same order."
        )
    return ((noisy_logits.float() - logits.float()) / sigma).square().mean() / 2
