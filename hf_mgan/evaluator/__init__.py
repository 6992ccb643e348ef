"""Evaluation of generators that cannot be gamed by a colder softmax, by copying or by length."""

from .report import Report
from .run import evaluate_generator
from .settings import Evaluation
from .verdict import Comparison, Point, Verdict, compare_at_matched_diversity


__all__ = [
    "Comparison",
    "Evaluation",
    "Point",
    "Report",
    "Verdict",
    "compare_at_matched_diversity",
    "evaluate_generator",
]
