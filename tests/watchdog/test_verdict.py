from types import SimpleNamespace

from transformers import TrainerControl, TrainerState

from hf_mgan.watchdog.callback import Watchdog

from .test_callback import failing, feed, healthy


def verdict_of(*entries):
    watchdog = Watchdog()
    feed(watchdog, *entries)
    return watchdog.verdict(len(entries), "out")


def test_healthy_run_says_where_it_started_and_ended():
    nearer = {"discriminator/accuracy": 0.6, "discriminator/value": -1.33, "completions/length_ratio": 1.04}
    assert verdict_of(*healthy(), *failing(nearer)) == (
        "Watchdog, after 20 steps: no alarm. The discriminator tells completions from real text with an accuracy of "
        "0.60 (0.70 at the start; by chance 0.50). V(D, G) is -1.33 nats (-1.39 at chance). Completions "
        "have 1.04 times the length of real texts (0.95 at the start). 2% of them repeat another one (real texts: "
        "1%). All this is said of texts that both models have learnt from. Whether the text has become better says "
        "only held-out text: hf-mgan evaluate --models out."
    )


def test_what_failed_is_told_from_what_has_passed():
    longer, alike = {"completions/length_ratio": 1.6}, {"completions/duplicates": 0.6}
    said = verdict_of(*healthy(), *failing(longer, 20), *healthy(20), *failing(alike))
    assert "after 60 steps: length_runaway at step 14, which has passed, generator_collapsed since step 59" in said
    assert "docs/troubleshooting.md" in said


def test_short_run_has_no_verdict_on_its_course():
    said = verdict_of(*healthy(5))
    assert "Too few steps" in said
    assert "accuracy" not in said


def test_verdict_is_printed_by_the_main_process_alone(capsys):
    watchdog = Watchdog()
    for is_main, printed in ((False, ""), (True, watchdog.verdict(7, "out") + "\n")):
        state = TrainerState(global_step=7, is_world_process_zero=is_main)
        watchdog.on_train_end(SimpleNamespace(output_dir="out"), state, TrainerControl())
        assert capsys.readouterr().out == printed
