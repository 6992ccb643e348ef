"""Reverse perplexity for `evaluate`: how well generated texts teach a language model about real ones."""

import evaluate

from hf_mgan.metrics import reverse_perplexity, small_language_model
from hf_mgan.metrics.hub_metric import PREDICTIONS_AND_REFERENCES, TextMetric, check_texts, tokens_with_end


CITATION = """\
@inproceedings{zhao2018adversarially,
  title = {Adversarially Regularized Autoencoders},
  author = {Zhao, Junbo and Kim, Yoon and Zhang, Kelly and Rush, Alexander M. and LeCun, Yann},
  booktitle = {ICML},
  year = {2018}
}
"""


class ReversePerplexity(TextMetric):
    """[`~hf_mgan.evaluation.reverse_perplexity`] with a [`~hf_mgan.evaluation.small_language_model`]."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=str(reverse_perplexity.__doc__),
            citation=CITATION,
            inputs_description=str(self._compute.__doc__),
            features=PREDICTIONS_AND_REFERENCES,
        )

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        corpus: list[str],
        tokenizer: str,
        max_length: int | None = None,
        epochs: int = 5,
        learning_rate: float = 1e-3,
        batch_size: int = 32,
        seed: int = 0,
    ) -> dict[str, float]:
        """Compute the perplexity of real texts under a small model that has learnt from generated ones.

        Args:
            predictions (`list[str]`): Generated texts.
            references (`list[str]`): As many real texts, whose perplexity is computed.
            corpus (`list[str]`): Other real texts, of which as many as there are predictions are learnt from.
            tokenizer (`str`): Id or folder of a tokenizer with an end token.
            max_length (`int`, *optional*): Tokens at which a text is cut.
            epochs (`int`, *optional*, defaults to 5): Passes over the texts.
            learning_rate (`float`, *optional*, defaults to 1e-3): Of AdamW without weight decay.
            batch_size (`int`, *optional*, defaults to 32): Texts a step.
            seed (`int`, *optional*, defaults to 0): Seed of the weights and of the order of the texts.

        Returns:
            `dict`: `reverse_perplexity`, [1, inf), and to read it by `real_perplexity`, the same after real texts.
        """
        from transformers import AutoTokenizer

        check_texts("corpus", corpus)
        loaded = AutoTokenizer.from_pretrained(tokenizer)
        start, rows = tokens_with_end([*predictions, *corpus, *references], loaded, max_length)
        generated, real, test = (
            rows[: len(predictions)],
            rows[len(predictions) : len(predictions) + len(corpus)],
            rows[len(predictions) + len(corpus) :],
        )
        result = reverse_perplexity(
            generated,
            real,
            test,
            model=small_language_model(len(loaded), 1 + max(map(len, rows)), seed),
            start_token_id=start,
            epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            seed=seed,
        )
        return {"reverse_perplexity": result.generated, "real_perplexity": result.real}
