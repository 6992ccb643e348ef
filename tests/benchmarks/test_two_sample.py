"""The benchmark of two-sample tests: its conditions, and the command at tiny size."""

import json
import random

from benchmarks.sweep import read_lines
from benchmarks.two_sample import __main__ as two_sample

from ..conftest import bert_classifier, texts, tokenizer_of_pairs


def test_swapped_words_are_neighbours():
    text = "a b c d e"
    found = {two_sample.swapped(text, random.Random(seed)) for seed in range(30)}
    assert found == {"b a c d e", "a c b d e", "a b d c e", "a b c e d"}


def test_sides_share_no_sentence():
    real = [f"{number} dogs" for number in range(30)]
    for condition in two_sample.CONDITIONS:
        one, other = two_sample.sides([*real, *real, "alone"], 10, condition)
        assert len(one) == len(other) == 10
        assert not set(one) & set(other)
        assert set(one) <= set(real)
    assert all(text.startswith("dogs") for text in two_sample.sides(real, 10, "swapped")[1])


def test_two_sample_runs_every_test(tmp_path):
    bert_classifier().bert.save_pretrained(tmp_path / "encoder")
    tokenizer_of_pairs().save_pretrained(tmp_path / "encoder")
    for split in ("train", "validation"):
        rows = "".join(json.dumps({"text": text}) + "\n" for text in texts(120, seed=1))
        (tmp_path / f"corpus.{split}.jsonl").write_text(rows)
    output = tmp_path / "out.jsonl"
    words = f"--encoder {tmp_path}/encoder --data {tmp_path}/corpus --texts 30 --conditions real --output {output}"
    two_sample.main(words.split())
    results = read_lines(output)
    assert [one["test"] for one in results] == ["c2st_auc", "encoder_c2st_auc", "fine_tuned_c2st_auc"]
    assert all(one["auc"][1] <= one["auc"][0] <= one["auc"][2] for one in results)
