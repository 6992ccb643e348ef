"""Reverse perplexity for `evaluate`: how well generated texts teach a language model about real ones."""

from typing import Any

from transformers import AutoTokenizer

from hf_mgan.data import TextPath, start_of_sequence
from hf_mgan.metrics import hub_metric, reverse_perplexity, small_language_model


class ReversePerplexity(hub_metric.TextMetric):
    """[`~hf_mgan.metrics.reverse_perplexity`] with a [`~hf_mgan.metrics.small_language_model`].

    Args:
        predictions (`list[str]`): Generated texts.
        references (`list[str]`): As many real texts, whose perplexity is computed.
        corpus (`list[str]`): Other real texts, of which as many as there are predictions are learnt from.
        tokenizer (`str`): Id or folder of a tokenizer.
        max_length (`int`, *optional*): Tokens at which a text is cut.
        seed (`int`, *optional*, defaults to 0): Seed of the weights and of the order of the texts.
        epochs (`int`, *optional*, defaults to 5): Passes over the texts.
        learning_rate (`float`, *optional*, defaults to 1e-3): Of AdamW without weight decay.
        batch_size (`int`, *optional*, defaults to 32): Texts per step.

    Returns:
        `dict`: `reverse_perplexity`, [1, inf), and to read it by `real_perplexity`, the same after real texts.
    """

    FUNCTION = staticmethod(reverse_perplexity)
    FEATURES = hub_metric.PREDICTIONS_AND_REFERENCES
    CITATION = """\
@inproceedings{zhao2018adversarially,
  title = {Adversarially Regularized Autoencoders},
  author = {Zhao, Junbo and Kim, Yoon and Zhang, Kelly and Rush, Alexander M. and LeCun, Yann},
  booktitle = {ICML},
  year = {2018}
}
"""

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        corpus: list[str],
        tokenizer: str,
        max_length: int | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> dict[str, float]:
        loaded = AutoTokenizer.from_pretrained(tokenizer)
        path = TextPath(loaded, max_length)
        generated, real, test = (path.encode([""] * len(texts), texts) for texts in (predictions, corpus, references))
        longest = max(map(len, (*generated, *real, *test)))
        model = small_language_model(len(loaded), 1 + longest, seed)
        [start] = path.encode_prompts([start_of_sequence(loaded)])[0]
        result = reverse_perplexity(generated, real, test, model=model, start_token_id=start, seed=seed, **settings)
        return {"reverse_perplexity": result.generated, "real_perplexity": result.real}
