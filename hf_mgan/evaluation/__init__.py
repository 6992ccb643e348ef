"""Evaluation of generators that neither a colder softmax nor copying nor length improves."""

from .comparison import Comparison, Point, Verdict, compare_at_matched_diversity
from .guided_model import GuidedModel
from .report import Report
from .run import evaluate_generator
from .settings import EvaluationConfig


__all__ = [
    "Comparison",
    "EvaluationConfig",
    "GuidedModel",
    "Point",
    "Report",
    "Verdict",
    "compare_at_matched_diversity",
    "evaluate_generator",
]
