"""Perplexity for `evaluate`: how probable texts are to a causal language model."""

import evaluate
import torch

from hf_mgan.metrics import nll_per_token, perplexity, token_nlls
from hf_mgan.metrics.hub_metric import PREDICTIONS, TextMetric, tokens_with_end


CITATION = """\
@article{jelinek1977perplexity,
  title = {Perplexity---a Measure of the Difficulty of Speech Recognition Tasks},
  author = {Jelinek, Fred and Mercer, Robert L. and Bahl, Lalit R. and Baker, James K.},
  journal = {The Journal of the Acoustical Society of America},
  year = {1977}
}
"""


class Perplexity(TextMetric):
    """[`~hf_mgan.evaluation.perplexity`] of texts that start from nothing and come to an end."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=str(perplexity.__doc__),
            citation=CITATION,
            inputs_description=str(self._compute.__doc__),
            features=PREDICTIONS,
        )

    def _compute(
        self,
        predictions: list[str],
        model: str,
        max_length: int | None = None,
        batch_size: int = 16,
        device: str = "cpu",
    ) -> dict[str, float]:
        """Compute the perplexity of texts.

        Of held-out real texts under the generator it falls as the generator learns and rises where it leaves a part of
        them out. Of generated texts under another model it says how likely they look, which collapse improves.

        Args:
            predictions (`list[str]`): Texts, generated or real.
            model (`str`): Id or folder of a causal language model, or of adapters of one, with its tokenizer.
            max_length (`int`, *optional*): Tokens at which a text is cut; by default it must fit the model.
            batch_size (`int`, *optional*, defaults to 16): Texts a forward pass.
            device (`str`, *optional*, defaults to `"cpu"`): Where the model runs, in float32.

        Returns:
            `dict`: `perplexity`, [1, inf), and `nll_per_token` in nats, the log of it. The end token of a text counts.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        start, rows = tokens_with_end(predictions, AutoTokenizer.from_pretrained(model), max_length)
        language_model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        nlls = token_nlls(language_model.to(device), [[start]] * len(rows), rows, batch_size)
        return {"perplexity": perplexity(nlls), "nll_per_token": nll_per_token(nlls)}
