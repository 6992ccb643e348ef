"""The frontier on the demo's language: tables, and the command at tiny size."""

import pytest

from benchmarks.language_frontier import __main__ as language_frontier
from benchmarks.language_frontier.generators import GENERATORS
from benchmarks.language_frontier.tables import TITLES, differences_table, divergences_table, draw, gather, page


def test_divergences_are_read_at_equal_draws():
    curve = [{"draws": 1.0, "divergence": 0.4}, {"draws": 4.0, "divergence": 0.2}]
    runs = [
        {"trained": "for_2_draws", "seed": seed, "alone": {"divergence": 0.5 + seed / 10}, "with_its_own": curve}
        for seed in (0, 1)
    ]
    row = divergences_table(runs).splitlines()[2]
    assert (
        row
        == "| adversarial, for 2 draws | 0, 1 | 0.550 ± 0.071 | 0.300 ± 0.000 | 0.242 ± 0.000 | 0.200 ± 0.000 | - |"
    )


def test_differences_are_those_of_a_seed():
    """0.1 bits farther in seed 0, 0.3 nearer in seed 1, whose maximum likelihood is another."""
    divergences = {("likelihood", 0): 0.4, ("likelihood", 1): 0.6, ("for_4_draws", 0): 0.5, ("for_4_draws", 1): 0.3}
    runs = []
    for (name, seed), value in divergences.items():
        curve = [{"draws": draws, "divergence": value} for draws in (1.0, 4.0)]
        runs.append({"trained": name, "seed": seed, "with_its_own": curve, "with_a_perfect_one": []})
    row = differences_table(runs).splitlines()[2]
    cell = "-0.100 ± 0.283 (1 of 2)"
    assert row == f"| adversarial, for 4 draws | {cell} | {cell} | - | - | - | - |"


@pytest.mark.benchmark
def test_command_runs_goes_on_and_writes_its_page(tmp_path, capsys):
    command = ["--tiny", "--seeds", "0", "--output", str(tmp_path)]
    language_frontier.main([*command, "--generators", "distilled_twice"])  # with what it goes on from
    assert {run["trained"] for run in gather(tmp_path)} == {"likelihood", "distilled", "distilled_twice"}
    language_frontier.main(command)
    assert "likelihood is there already" in capsys.readouterr().out
    runs = gather(tmp_path)
    assert {run["trained"] for run in runs} == set(GENERATORS) == set(TITLES)
    likelihoods = {run["trained"]: run["alone"]["real_nll"] for run in runs}
    assert len(set(likelihoods.values())) == len(likelihoods)
    text = page(runs)
    assert "{" not in text
    assert "| adversarial, for 2 draws |" in text
    draw(runs, tmp_path / "drawn.svg")
    assert (tmp_path / "drawn.svg").read_text().startswith("<?xml")


def test_command_refuses_to_publish_a_dry_run(tmp_path, capsys):
    with pytest.raises(SystemExit):
        language_frontier.main(["--tiny", "--publish", "--output", str(tmp_path)])
    assert "nothing to publish" in capsys.readouterr().err
