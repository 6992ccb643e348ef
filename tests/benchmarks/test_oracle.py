"""The benchmark with oracles: densities and divergences by hand, training, tables, and the command."""

import math
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from benchmarks.oracle import __main__ as oracle
from benchmarks.oracle import language as oracle_language
from benchmarks.oracle import lstm as oracle_lstm
from benchmarks.oracle import tables as oracle_tables
from benchmarks.oracle import training as oracle_training
from benchmarks.oracle.lstm import Oracle, draw, make_generator, token_logps, with_start
from benchmarks.oracle.metrics import PREFIXES, compare, diversity
from benchmarks.sweep import Job, read_folder, read_lines, write_file
from hf_mgan.demo.language import Language
from hf_mgan.demo.models import SPECIAL_TOKENS, make_tokenizer


WORDS = 3
EVERY_TEXT = torch.tensor(list(product(range(WORDS), repeat=2)))  # of two words: 9


def frequencies(texts):
    return torch.bincount(texts[:, 0] * WORDS + texts[:, 1], minlength=WORDS**2) / len(texts)


def check_density(probs, samples):
    """All 9 probabilities sum to 1, and no frequency is further than 4.5 standard errors from its probability."""
    assert probs.sum().item() == pytest.approx(1, abs=1e-5)
    errors = (probs * (1 - probs) / len(samples)).sqrt()
    assert ((frequencies(samples) - probs).abs() < 4.5 * errors).all()


@pytest.fixture
def small_oracle():
    return Oracle(WORDS, width=4, length=2, seed=0)


# The oracle


def test_oracle_samples_what_its_density_says(small_oracle):
    probs = small_oracle.token_logps(EVERY_TEXT).sum(1).exp()
    assert probs.min() < 0.6 * probs.max()  # so that the test can tell
    check_density(probs, small_oracle.sample(20_000, seed=1))


def test_oracle_is_the_published_cell(small_oracle):
    """One step by hand from a state of zeros, after the embedding of word 0: c = i * g, h = o * tanh(c)."""
    weights = dict(small_oracle.named_parameters())
    gates = weights["recurrent.weight_ih_l0"] @ weights["embedding.weight"][0] + weights["recurrent.bias_ih_l0"]
    i, _, g, o = gates.chunk(4)
    state = o.sigmoid() * (i.sigmoid() * g.tanh()).tanh()
    expected = (weights["head.weight"] @ state + weights["head.bias"]).log_softmax(0)
    logps = small_oracle.token_logps(EVERY_TEXT)[:, 0]
    torch.testing.assert_close(logps, expected[EVERY_TEXT[:, 0]].double())


def test_oracle_has_standard_normal_weights_by_seed():
    one, other = (Oracle(2000, width=32, length=2, seed=seed) for seed in (0, 1))
    for name, weight in one.named_parameters():
        if name == "recurrent.bias_hh_l0":  # torch adds two biases where the original has one
            assert not weight.any()
            continue
        error = 4 / math.sqrt(weight.numel())
        assert abs(weight.mean().item()) < error
        assert abs(weight.std().item() - 1) < error
        assert not torch.equal(weight, dict(other.named_parameters())[name])
    assert torch.equal(one.sample(3, seed=5), one.sample(3, seed=5))
    assert not torch.equal(one.sample(3, seed=5), one.sample(3, seed=6))


def test_oracle_does_not_depend_on_chunks(small_oracle, monkeypatch):
    whole = small_oracle.token_logps(EVERY_TEXT)
    monkeypatch.setattr(oracle_lstm, "CHUNK", 2)
    torch.testing.assert_close(small_oracle.token_logps(EVERY_TEXT), whole)
    assert small_oracle.sample(5, seed=0).shape == (5, 2)


# The generator


@pytest.fixture
def small_generator():
    """A generator of three words whose words are not equally likely."""
    torch.manual_seed(3)
    tokenizer = make_tokenizer([f"w{word}" for word in range(WORDS)], adds_ends=False)
    model = make_generator(tokenizer, 8).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(40)
        model.lm_head.bias[len(SPECIAL_TOKENS) :] = torch.tensor([0.0, 0.5, -0.5])
    return model


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_generator_samples_what_its_density_says(small_generator, temperature):
    probs = token_logps(small_generator, EVERY_TEXT, temperature).sum(1).exp()
    assert probs.min() < 0.5 * probs.max()
    check_density(probs, draw(small_generator, 5000, 2, temperature, seed=1))


def test_generator_writes_words_alone(small_generator):
    """All mass is on the words, and the special tokens get no gradient that could change that."""
    logits = small_generator(input_ids=torch.tensor([[small_generator.config.bos_token_id]])).logits[0, 0]
    assert logits.softmax(0)[: len(SPECIAL_TOKENS)].tolist() == [0] * len(SPECIAL_TOKENS)
    (-logits.log_softmax(0)[-1]).backward()
    assert not small_generator.lm_head.bias.grad[: len(SPECIAL_TOKENS)].any()
    assert small_generator.lm_head.bias.grad[len(SPECIAL_TOKENS) :].all()

    with torch.no_grad():
        small_generator.lm_head.bias[small_generator.config.eos_token_id] = 10.0
    with pytest.raises(ValueError, match="special token"):
        draw(small_generator, 10, 2, 1.0, seed=0)


class Fixed(nn.Module):
    """A generator that gives three words the probabilities 0.5, 0.3 and 0.2 everywhere."""

    config = SimpleNamespace(bos_token_id=1)

    def forward(self, input_ids):
        logits = torch.full((*input_ids.shape, len(SPECIAL_TOKENS) + WORDS), -1e4)
        logits[..., len(SPECIAL_TOKENS) :] = torch.tensor([0.5, 0.3, 0.2]).log()
        return SimpleNamespace(logits=logits)


def test_token_logps_with_temperature_are_right_by_hand():
    """At temperature 1/2 probabilities are squared: 0.25, 0.09 and 0.04 of 0.38. Texts 0 1 and 2 2, so -log q per
    word is -(log 0.25 + log 0.09 + 2 log 0.04 - 4 log 0.38) / 4.
    """
    texts = torch.tensor([[0, 1], [2, 2]])
    logps = token_logps(Fixed(), texts, 0.5)
    torch.testing.assert_close(logps.float(), (torch.tensor([[0.25, 0.09], [0.04, 0.04]]) / 0.38).log())
    expected = -(math.log(0.25) + math.log(0.09) + 2 * math.log(0.04) - 4 * math.log(0.38)) / 4
    assert compare(logps, logps, logps, logps)["nll_gen"] == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(token_logps(Fixed(), texts).float(), torch.tensor([[0.5, 0.3], [0.2, 0.2]]).log())


# Metrics


def test_compare_has_its_hand_computed_values():
    """One word, 0 or 1: p = 3/4, 1/4 and q the other way round; samples in these proportions.

    Both KL are 1/2 log 3. M is 1/2, 1/2, so JS = 1 - H(1/4) = 0.18872 bits, and V = 2 JS ln 2 - log 4 = -1.12467. The
    terms of KL are log 3 three times and -log 3 once: deviation log 3, over sqrt 4.
    """
    p, q = torch.tensor([0.75, 0.25]).log().double(), torch.tensor([0.25, 0.75]).log().double()
    real, fake = torch.tensor([[0], [0], [0], [1]]), torch.tensor([[1], [1], [1], [0]])
    measured = compare(p[real], q[real], p[fake], q[fake])
    cross = -(0.75 * math.log(0.25) + 0.25 * math.log(0.75))
    assert measured["nll_oracle"] == measured["nll_gen"] == pytest.approx(cross)
    assert measured["entropy"] == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert measured["forward_kl"] == measured["reverse_kl"] == pytest.approx(math.log(3) / 2)
    assert measured["forward_kl_error"] == pytest.approx(math.log(3) / 2)
    assert measured["divergence"] == pytest.approx(0.188722, abs=1e-6)
    assert measured["best_value"] == pytest.approx(-1.124670, abs=1e-5)
    assert not any(f"divergence_of_{k}" in measured for k in PREFIXES)  # no text is longer


def test_compare_is_per_word_or_per_text_as_it_says():
    """Each word twice: NLL per word stays and KL per text doubles; the first word alone has the divergence of one.

    In whole texts q/p is then 1/9 three times and 9 once: 1 - (3 log2(10/9) + log2(10)) / 4 = 0.055516 bits.
    """
    p, q = torch.tensor([0.75, 0.25]).log().double(), torch.tensor([0.25, 0.75]).log().double()
    real, fake = torch.tensor([[0], [0], [0], [1]]), torch.tensor([[1], [1], [1], [0]])
    one = compare(p[real], q[real], p[fake], q[fake])
    two = compare(*(logps.repeat(1, 2) for logps in (p[real], q[real], p[fake], q[fake])))
    assert two["nll_oracle"] == pytest.approx(one["nll_oracle"])
    for name in ("forward_kl", "reverse_kl"):
        assert two[name] == pytest.approx(2 * one[name])
    assert two["divergence_of_1"] == pytest.approx(one["divergence"])
    assert two["divergence"] == pytest.approx(0.055516, abs=1e-6)


def test_diversity_is_of_texts_as_words():
    """0 1 twice and 0 2: 3 of 6 words, 2 of 3 pairs, and one text of three is a duplicate."""
    measured = diversity(torch.tensor([[0, 1], [0, 1], [0, 2]]))
    assert measured["distinct_1"] == pytest.approx(3 / 6)
    assert measured["distinct_2"] == pytest.approx(2 / 3)
    assert measured["duplicates"] == pytest.approx(1 / 3)


def test_references_are_words_drawn_each_for_itself(small_oracle):
    """With one more of each, the words 0, 1 and 2 of two texts 0 0 and 0 1 have the weights 4, 2 and 1."""
    learnt = torch.tensor([[0, 0], [0, 1]])
    held_out = small_oracle.sample(8000, seed=1)
    references = oracle_lstm.OracleMetrics(small_oracle, held_out, learnt, 0).references()
    counts = torch.bincount(held_out.flatten(), minlength=WORDS).tolist()
    expected = -sum(n * math.log(w / 7) for n, w in zip(counts, (4, 2, 1), strict=True)) / sum(counts)
    assert references["unigram"]["nll_gen"] == pytest.approx(expected)
    assert references["uniform"]["nll_gen"] == references["uniform"]["entropy"] == pytest.approx(math.log(3))
    assert references["oracle"]["divergence"] == 0
    entropy = -sum(weight / 7 * math.log(weight / 7) for weight in (4, 2, 1))
    assert references["unigram"]["entropy"] == pytest.approx(entropy, abs=0.02)


# Maximum likelihood


def test_fit_keeps_the_model_that_is_best_on_held_out_texts(tmp_path):
    """Forty texts at a great learning rate are soon learnt by heart, and one or two steps are too few: the best is the
    second schedule, before its end.
    """
    tokenizer = make_tokenizer([f"w{word}" for word in range(8)], adds_ends=False)
    source = Oracle(8, width=4, length=4, seed=0)
    learnt, held_out = source.sample(40, seed=1), source.sample(60, seed=2)
    model, fits = oracle_training.fit(
        lambda: make_generator(tokenizer, 8),
        with_start(learnt, tokenizer),
        with_start(held_out, tokenizer),
        tokenizer,
        tmp_path,
        schedules=(2, 40, 1),
        batch_size=10,
        learning_rate=0.02,
        weight_decay=0.0,
        seed=0,
    )
    assert [one.steps for one in fits] == [2, 40, 1]
    nll, step = fits[1].best
    assert step < 40
    assert nll < fits[1].curve[-1][1] - 0.1
    assert nll < min(fits[0].best[0], fits[2].best[0]) - 0.005
    assert -token_logps(model.eval(), held_out).mean().item() == pytest.approx(nll, abs=1e-4)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(token_logps(saved, held_out), token_logps(model, held_out))


def test_language_generator_is_the_demos_at_its_width(monkeypatch, tmp_path):
    """The demo makes its own within its training, which is stopped here as soon as it has it."""
    from hf_mgan.demo import models

    made = []

    class Stop(Exception):
        pass

    def stop(model, *_, **__):
        made.append(model)
        raise Stop

    monkeypatch.setattr(models, "SFTTrainer", stop)
    tokenizer = make_tokenizer(Language().words, adds_ends=False)
    with pytest.raises(Stop):
        models.train_generator(["the dog"], tokenizer, tmp_path, 1, 1, 0, callback=None)
    ours = oracle_language.make_generator(tokenizer, 24)
    assert ours.config.to_diff_dict() == made[0].config.to_diff_dict()


# Jobs and tables


@pytest.fixture(scope="module")
def drawn():
    """Seeds of the oracles, and of their texts."""
    return {"oracles": [], "texts": []}


@pytest.fixture(scope="module")
def results(drawn):
    class Recorded(Oracle):
        def __init__(self, words, width, length, seed):
            drawn["oracles"].append(seed)
            super().__init__(words, width, length, seed)

        def sample(self, count, seed):
            drawn["texts"].append(seed)
            return super().sample(count, seed)

    jobs = [Job("lstm", 0), Job("lstm", 1), Job("language-2000-24", 0)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oracle_lstm, "Oracle", Recorded)
        return [oracle.do(job, tiny=True) for job in jobs]


def test_seeds_have_their_own_oracle_and_texts(results, drawn):
    """To learn from, to stop at, to measure with, and to measure the oracle itself."""
    assert drawn["oracles"] == [0, 1]
    assert len(drawn["texts"]) == len(set(drawn["texts"])) == 8


def test_do_measures_both_generators_at_every_temperature(results):
    assert not any("error" in one for one in results)
    for result in results[:2]:
        for name in ("likelihood", "adversarial", "fast"):
            assert [one["temperature"] for one in result[name]] == list(oracle_lstm.TINY.temperatures)
            # A colder softmax is more confident.
            cold, warm = result[name]
            assert cold["entropy"] < warm["entropy"]
        assert result["likelihood"] != result["adversarial"]
        assert result["references"]["oracle"]["divergence"] == 0
        assert result["references"]["uniform"]["nll_gen"] == pytest.approx(math.log(30), abs=1e-4)
        assert result["adversarial"] != result["fast"]
        assert result["discriminator_aucs"].keys() == {"warmup", "adversarial", "fast"}
        assert all(0 < auc < 1 for aucs in result["discriminator_aucs"].values() for auc in aucs.values())
        assert result["training"].keys() == result["fast_training"].keys() == {"real_prob", "fake_prob", "value"}
    language = results[2]
    assert len(language["adversarial"]) == len(language["likelihood"]) == 5
    assert language["adversarial"] != language["likelihood"]


def test_second_run_has_the_same_discriminator_at_its_start(monkeypatch, tmp_path):
    seen = []

    def aucs(trainer, *texts):
        weights = [value.sum().item() for value in trainer.discriminator.model.parameters()]
        seen.append((trainer.state.global_step, trainer.args.learning_rate, weights, texts))
        return {"auc_learnt": 0.5, "auc_held_out": 0.5}

    monkeypatch.setattr(oracle_lstm, "discriminator_aucs", aucs)
    oracle_lstm.measure(oracle_lstm.TINY, 0)
    assert [step for step, *_ in seen] == [1, 10, 1, 10]
    assert [rate for _, rate, *_ in seen] == [1e-4, 1e-4, 7e-4, 7e-4]
    assert seen[0][2:] == seen[2][2:]  # the generator has not moved either: its texts are the same


def test_discriminator_aucs_tell_learnt_from_held_out_texts():
    def score(prompts, texts):
        assert set(prompts) == {""}
        return torch.tensor([float(text) for text in texts])

    trainer = SimpleNamespace(discriminator=SimpleNamespace(score=score))
    aucs = oracle_training.discriminator_aucs(trainer, ["3", "4"], ["0", "2", "3", "-1"], ["1", "1"])
    assert aucs == {"auc_learnt": 1.0, "auc_held_out": 0.5}


def test_page_holds_ours_beside_what_was_published(results):
    page = oracle_tables.page(results)
    assert "| RelGAN | 6.680 | - |" in page
    real = [one["references"]["oracle"]["nll_oracle"] for one in results[:2]]
    assert f"| real text | 5.750 | {sum(real) / 2:.3f} ±" in page
    assert "| 10,000 | 24 | adversarial | not run |" in page
    assert "Every job ended well." in page
    assert "takes NLL_oracle from" in page
    failed = [*results, {"condition": "lstm", "seed": 2, "settings": {}, "error": "Traceback\nValueError: no luck"}]
    assert "- lstm, seed 2, failed: `ValueError: no luck`" in oracle_tables.page(failed)
    oracle_tables.page([])  # nothing yet


def test_difference_is_at_each_generators_best_temperature():
    """Likelihood 0.5 and 0.4 at best, adversarial 0.3 and 0.1: -0.2 and -0.3, mean -0.25, error 0.05."""

    def result(likelihood, adversarial):
        return {
            name: [{"temperature": number, "divergence": value} for number, value in enumerate(values)]
            for name, values in (("likelihood", likelihood), ("adversarial", adversarial))
        }

    ones = [result([0.5, 0.6], [0.7, 0.3]), result([0.8, 0.4], [0.1, 0.9])]
    difference = oracle_tables.difference_of(ones, "divergence")
    assert difference.mean == pytest.approx(-0.25)
    assert difference.standard_error == pytest.approx(0.05)
    assert oracle_tables.at(ones[0]["likelihood"], 1)["divergence"] == 0.6


def test_main_goes_on_where_it_stopped(results, tmp_path, monkeypatch, capsys):
    started = []

    def leave(job, module, options, folder, settings):
        started.append(job)
        error = {"error": "Traceback\nValueError: no luck"} if job.seed == 1 and len(started) < 3 else {}
        write_file(job.path(folder), {**results[0], **error, "condition": job.name, "seed": job.seed})

    monkeypatch.setattr(oracle, "do_in_process", leave)
    words = ["--output", str(tmp_path), "--tiny", "--conditions", "lstm", "--seeds", "0", "1"]
    oracle.main(words)
    assert started == [Job("lstm", 0), Job("lstm", 1)]
    assert "lstm.1: failed: ValueError: no luck" in capsys.readouterr().out
    oracle.main(words)
    assert len(started) == 2
    oracle.main([*words, "--retry"])
    assert started[2:] == [Job("lstm", 1)]
    assert not any("error" in one for one in read_folder(tmp_path).values())
    assert len(read_lines(tmp_path / "oracle.jsonl")) == 2
    with pytest.raises(ValueError, match="different sizes"):
        oracle.main(words[:2])


def test_main_in_a_process_leaves_a_table(tmp_path):
    """In a process of its own, as a long run does it."""
    oracle.main(["--output", str(tmp_path), "--tiny", "--conditions", "lstm", "--seeds", "0"])
    assert "error" not in read_folder(tmp_path)[Job("lstm", 0)]
    page = (tmp_path / "oracle.md").read_text()
    assert page.startswith("# Oracles")
    assert "| maximum likelihood | " in page


def test_do_returns_an_error_as_the_result():
    assert "KeyError" in oracle.do(Job("language-1-1", 0), tiny=True)["error"]


def test_jobs_go_seed_by_seed():
    jobs = oracle.jobs_of(["language-2000-24", "lstm"], [0, 1])
    assert [f"{job.name}.{job.seed}" for job in jobs] == [
        *["lstm.0", "language-2000-24.0"],
        *["lstm.1", "language-2000-24.1"],
    ]
    assert len(oracle.jobs_of(["language"], [0])) == len(oracle_language.CONDITIONS)
    with pytest.raises(ValueError, match="--conditions"):
        oracle.jobs_of(["ltsm"], [0])
