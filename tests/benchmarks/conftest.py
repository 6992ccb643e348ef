import json
from pathlib import Path

import pytest

from hf_mgan.training import text_source

from ..conftest import bert_classifier, causal_generator, generators_tokenizer, texts, tokenizer_of_pairs


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark every test of this folder as `benchmark`, which the default run leaves out."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.benchmark)


@pytest.fixture
def of_texts(tmp_path):
    """Return what a benchmark on real text is given: tiny models and a corpus, and where it may write."""
    for name, model, tokenizer in (
        ("generator", causal_generator(), generators_tokenizer()),
        ("discriminator", bert_classifier(), tokenizer_of_pairs()),
    ):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    for split, count in (("train", 240), ("validation", 60)):
        rows = "".join(json.dumps({"text": text}) + "\n" for text in texts(count, seed=count))
        (tmp_path / f"corpus.{split}.jsonl").write_text(rows)
    places = {"output": "out", "generator": "generator", "discriminator": "discriminator", "data": "corpus"}
    return [word for flag, name in places.items() for word in (f"--{flag}", str(tmp_path / name))]


@pytest.fixture
def in_this_process(monkeypatch):
    """Let the jobs of a sweep be done in this process: to start one takes longer than a tiny job."""

    def patch(benchmark):
        def start(job, module, options, folder, settings):
            benchmark.main(["--child", job.name, str(job.seed), "--output", str(folder), *options])

        monkeypatch.setattr(benchmark, "do_in_process", start)
        monkeypatch.setattr(benchmark, "silence", lambda: None)
        # Of the 2,000 that the demo keeps: ten times as many texts as such a job trains on.
        monkeypatch.setattr(text_source, "MOST_HELD_OUT", 200)

    return patch
