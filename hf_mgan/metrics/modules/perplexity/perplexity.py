"""Perplexity for `evaluate`: how probable texts are to a causal language model."""

from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_mgan.data import TextPath, start_of_sequence
from hf_mgan.metrics import hub_metric, nll_per_token, perplexity, token_nlls


class Perplexity(hub_metric.TextMetric):
    """[`~hf_mgan.metrics.perplexity`] of texts that start without a prompt and come to an end.

    Of held-out real texts under the generator it falls as the generator learns and rises where it leaves a part of
    them out. Of generated texts under another model it says how likely they look, which mode collapse improves.

    Args:
        predictions (`list[str]`): Texts, generated or real.
        model (`str`): Id or folder of a causal language model, or of adapters of one, with its tokenizer.
        max_length (`int`, *optional*): Tokens at which a text is cut; by default it must fit the model.
        batch_size (`int`, *optional*, defaults to 16): Texts per forward pass.
        device (`str`, *optional*, defaults to `"cpu"`): Where the model runs, in float32.

    Returns:
        `dict`: `perplexity`, [1, inf), and `nll_per_token` in nats, the log of it. The end token of a text counts.
    """

    FUNCTION = staticmethod(perplexity)
    CITATION = """\
@article{jelinek1977perplexity,
  title = {Perplexity---a Measure of the Difficulty of Speech Recognition Tasks},
  author = {Jelinek, Fred and Mercer, Robert L. and Bahl, Lalit R. and Baker, James K.},
  journal = {The Journal of the Acoustical Society of America},
  year = {1977}
}
"""

    def _compute(
        self,
        predictions: list[str],
        model: str,
        max_length: int | None = None,
        batch_size: int = 16,
        device: str = "cpu",
    ) -> dict[str, float]:
        tokenizer = AutoTokenizer.from_pretrained(model)
        path = TextPath(tokenizer, max_length)
        [start] = path.encode_prompts([start_of_sequence(tokenizer)])
        rows = path.encode([""] * len(predictions), predictions)
        language_model: Any = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
        nlls = token_nlls(language_model.to(device), [start] * len(rows), rows, batch_size)
        return {"perplexity": perplexity(nlls), "nll_per_token": nll_per_token(nlls)}
