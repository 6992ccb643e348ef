"""Instance noise for text: tokens that are replaced at random, in real and generated text alike.

In: encoded texts. Out: the same with some tokens replaced.
"""

import torch
from transformers import BatchEncoding, PreTrainedTokenizerBase


class TokenDropout:
    """Replaces each token of a text with a fixed probability.

    Noise on both kinds of text makes their distributions overlap, without which the best discriminator is
    confident of everything and teaches nothing: section 3 of Arjovsky and Bottou 2017, "Towards principled methods for
    training generative adversarial networks" ([1701.04862](https://huggingface.co/papers/1701.04862)), and Sønderby et
    al. 2017 ([1610.04490](https://huggingface.co/papers/1610.04490)), for whom it is noise on pixels.

    A token becomes the tokenizer's mask token, or, where it has none, one drawn uniformly from its vocabulary without
    special tokens. Special tokens and padding stay. Draws are torch's, from its generator of the texts' device.

    Args:
        processing_class (`PreTrainedTokenizerBase`): The tokenizer of the texts.
        probability (`float`): [0, 1).
    """

    def __init__(self, processing_class: PreTrainedTokenizerBase, probability: float) -> None:
        self.probability = probability
        added = {index for index, token in processing_class.added_tokens_decoder.items() if token.special}
        special = added | set(processing_class.all_special_ids)
        self._special = torch.tensor(sorted(special))
        mask = processing_class.mask_token_id
        # What takes the place of a token, one of them.
        self._substitutes = torch.tensor(
            [mask] if mask is not None else sorted(set(processing_class.get_vocab().values()) - special)
        )

    def __call__(self, batch: BatchEncoding) -> BatchEncoding:
        """Return a batch with tokens replaced; the one given is not changed."""
        ids = batch["input_ids"]  # Shape (B, T)
        is_special = torch.isin(ids, self._special.to(ids.device))  # padding is
        dropped = ~is_special & (torch.rand(ids.shape, device=ids.device) < self.probability)
        draws = torch.randint(len(self._substitutes), ids.shape, device=ids.device)
        return BatchEncoding({**batch, "input_ids": ids.where(~dropped, self._substitutes.to(ids.device)[draws])})
