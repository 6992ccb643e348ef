"""No malformed setting is accepted, fails in training or comes as a raw error: all of them are counted by class."""

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_mgan.config_checks import DICT_SETTINGS, INHERITED, SETTINGS

from .malformed_settings import CONFIG, INHERITED_SETTINGS, KEYS, attempts, outcome
from .test_checks import ANYTHING, refusal


def test_malformed_settings_are_counted_by_class(make_config, make_trainer):
    """Nothing silent: what is refused at construction cannot fail in training either."""
    outcomes = [(attempt, *outcome(attempt)) for attempt in attempts(make_config, make_trainer)]
    wrong = {attempt.name: message for attempt, kind, message in outcomes if kind in ("silent", "raw")}
    assert wrong == {}
    counts = Counter(kind for _, kind, _ in outcomes)
    assert counts["ours"] > 3000
    assert counts["upstream"] < 10


def test_every_setting_of_the_config_is_tried():
    assert set(CONFIG) == set(SETTINGS)
    assert set(INHERITED_SETTINGS) == set(INHERITED)
    for name, setting in DICT_SETTINGS.items():
        assert set(KEYS[name]) == set(setting.keys)


@settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # it holds a folder's name alone
)
@given(name=st.sampled_from(sorted(SETTINGS | INHERITED)), value=ANYTHING)
def test_any_value_is_taken_or_refused_by_name(make_config, name, value):
    message = refusal(make_config, **{name: value})
    if message is None:
        make_config(**{name: value}).check()
    else:
        assert name in message or "generation_batch_size" in message  # which follows from others
