import statistics

import pytest
import torch

from hf_mgan.decoding import DecodingConfig, guided_sample, sample
from hf_mgan.decoding import guided as guided_module

from .conftest import END, FEW_WORDS, METHODS, calibration, exact, misfit, with_none


PROMPT = "<s> dog"
IDS = [FEW_WORDS["<s>"], FEW_WORDS["dog"]]
COUNT = 6000


def settings(**changes):
    return DecodingConfig(**{"max_new_tokens": 2, "batch_size": COUNT, **changes})


def guided(pair, prompts=(PROMPT,), keep=None, discriminator=None, on_text=None, **changes):
    chosen = pair.discriminator if discriminator is None else discriminator
    return guided_sample(pair.model, pair.tokenizer, chosen, list(prompts), settings(**changes), keep, on_text)


@pytest.mark.statistics
@pytest.mark.parametrize("threshold", [-1.0, 0.0, 1.0])
def test_guided_sample_by_rejection_is_exact(pair, threshold):
    """What is accepted has the density q(x) min(1, e^(r - c)) / Z, from the probabilities of both models."""
    drawn = guided(pair, [IDS] * COUNT, threshold=threshold, num_candidates=40, batch_size=COUNT // 10)
    q, r = pair.q(PROMPT, 2), pair.r(PROMPT, 2)
    accepted = q * (r - threshold).exp().clamp(max=1)
    assert q.sum().item() == pytest.approx(1)
    counts = pair.counts(drawn.completion_ids, 2)
    assert misfit(counts, with_none(accepted / accepted.sum())) < 4
    assert threshold < 0 or misfit(counts, with_none(q)) > 10
    assert drawn.draws == pytest.approx(1 / accepted.sum().item(), rel=0.05)
    assert drawn.accepted == [True] * COUNT
    numbers = {tuple(row): number for number, row in enumerate(pair.ids(2))}
    assert drawn.log_ratios == pytest.approx([r[numbers[tuple(row)]].item() for row in drawn.completion_ids], abs=1e-4)


@pytest.mark.statistics
@pytest.mark.parametrize(("method", "k"), [("rejection", 2), *((method, k) for method in METHODS[1:] for k in (2, 3))])
def test_guided_sample_of_every_method_is_exact(pair, method, k):
    """With k candidates, the bound of rejection included; a filter refuses what has one of the words."""
    threshold = 1.0 if method == "rejection" else 0.0
    drawn = guided(
        pair,
        [IDS] * COUNT,
        lambda _, texts: ["cat" not in text for text in texts],
        method=method,
        num_candidates=k,
        threshold=threshold,
    )
    refused = torch.tensor([FEW_WORDS["cat"] in row for row in pair.ids(2)])
    q, r = pair.q(PROMPT, 2), pair.r(PROMPT, 2).masked_fill(refused, -torch.inf)
    assert misfit(pair.counts(drawn.completion_ids, 2), exact(method, q, r, k, threshold)) < 4


def test_guided_choice_is_independent_of_the_texts(pair):
    """With as many candidates as tokens, random numbers of the same seed would stand at the same places."""
    drawn = guided(pair, [IDS] * COUNT, num_candidates=len(FEW_WORDS), threshold=1.0)
    at_once = [
        row
        for row, tries, is_accepted in zip(drawn.completion_ids, drawn.tries, drawn.accepted, strict=True)
        if tries == 1 and is_accepted
    ]
    accepted = pair.q(PROMPT, 2) * (pair.r(PROMPT, 2) - 1).exp().clamp(max=1)
    assert misfit(pair.counts(at_once, 2), with_none(accepted / accepted.sum())) < 4


def test_guided_sample_of_prompts_of_unequal_length(pair):
    """One of them is padded by three tokens; each has the distribution of its own."""
    prompts = ["<s> dog", "<s> cat king cat dog"]
    drawn = guided(pair, prompts * (COUNT // 2), threshold=0.5, max_new_tokens=1, num_candidates=30)
    for first, prompt in enumerate(prompts):
        accepted = pair.q(prompt, 1) * (pair.r(prompt, 1) - 0.5).exp().clamp(max=1)
        expected = with_none(accepted / accepted.sum())
        assert misfit(pair.counts(drawn.completion_ids[first::2], 1), expected) < 4
        assert misfit(pair.counts(drawn.completion_ids[1 - first :: 2], 1), expected) > 10
        assert drawn.prompt_ids[first] == pair.tokenizer(prompt)["input_ids"]


@pytest.mark.parametrize("batch_size", [1, 7])
def test_guided_sample_keeps_the_order_of_prompts(pair, batch_size):
    """At a temperature of 1e-4 each prompt has its likeliest text, whatever it is drawn with."""
    pair.discriminator.calibration = calibration(temperature=1e-4)
    prompts = ["<s> king king", "<s>", "<s> dog", "<s> cat king cat dog"]
    drawn = guided(pair, prompts, temperature=1e-4, num_candidates=3, batch_size=batch_size)
    alone = sample(pair.model, pair.tokenizer, prompts, 2, temperature=1e-4)
    assert drawn.texts == alone.texts
    assert drawn.completion_ids == alone.completion_ids
    shown = [prompt.removeprefix("<s>").strip() for prompt in prompts]
    assert drawn.log_ratios == pytest.approx(pair.discriminator.log_ratio(shown, alone.texts).tolist(), abs=1e-4)


def test_guided_sample_keeps_the_end_token(pair):
    drawn = guided(pair, [IDS] * 200, num_candidates=20)
    ended = [row for row in drawn.completion_ids if END in row]
    assert {len(row) for row in ended} == {1, 2}  # also at the limit
    assert {len(row) for row in drawn.completion_ids if END not in row} == {2}
    words = pair.tokenizer.batch_decode(drawn.completion_ids, skip_special_tokens=True)
    assert drawn.texts == [f" {word}" if word else "" for word in words]  # as they stand behind their prompt


def test_exhausted_tries_are_counted_and_warned_of(pair):
    """At c = 60 nothing is accepted, and each prompt has one of its five candidates."""
    with pytest.warns(UserWarning, match="^20 of 20 prompts .* after 5 tries: 0 of them none at all") as caught:
        drawn = guided(pair, [IDS] * 20, threshold=60.0, num_candidates=5)
    assert caught[0].filename == __file__  # the caller's line, not ours
    assert (drawn.num_exhausted, drawn.num_kept, drawn.draws) == (20, 20, 5.0)
    assert drawn.tries == [5] * 20
    assert drawn.accepted == [False] * 20
    assert None not in drawn.texts
    assert 5 < drawn.tokens_per_text <= 10  # of five candidates of one token or two
    assert sum(drawn.tokens) == pytest.approx(20 * drawn.tokens_per_text)


@pytest.mark.parametrize("method", METHODS)
def test_filter_that_refuses_everything(pair, method):
    with pytest.warns(UserWarning, match="^8 of 8 prompts .*: 8 of them none at all"):
        drawn = guided(pair, [IDS] * 8, lambda _, texts: [False] * len(texts), method=method, num_candidates=3)
    assert drawn.texts == [None] * 8
    assert drawn.completion_ids == [[]] * 8
    assert all(ratio != ratio for ratio in drawn.log_ratios)
    assert (drawn.num_exhausted, drawn.num_kept, drawn.draws) == (8, 0, float("inf"))
    assert drawn.tokens_per_text == float("inf")
    assert drawn.tries == [3] * 8


@pytest.mark.parametrize("method", METHODS)
def test_filter_without_a_discriminator_decides_alone(pair, method):
    """What is kept is the generator's distribution among what passes, whatever the method."""
    refused = torch.tensor([FEW_WORDS["cat"] in row for row in pair.ids(2)])
    seen = []

    def keep(prompts, texts):
        seen.extend(prompts)
        return torch.tensor(["cat" not in text for text in texts])

    config = settings(method=method, num_candidates=3)
    drawn = guided_sample(pair.model, pair.tokenizer, None, [IDS] * COUNT, config, keep)
    q = pair.q(PROMPT, 2)
    expected = exact(method, q, torch.zeros_like(q).masked_fill(refused, -torch.inf), 3)
    assert misfit(pair.counts(drawn.completion_ids, 2), expected) < 4
    assert {ratio for ratio in drawn.log_ratios if ratio == ratio} == {0.0}
    assert set(seen) == {"dog"}
    passes = q[~refused].sum().item()
    assert drawn.draws == pytest.approx(1 / passes if method == "rejection" else 3 / (1 - (1 - passes) ** 3), rel=0.05)


def test_filter_reads_prompts_that_the_discriminator_does_not(pair):
    pair.discriminator.calibration = calibration(with_prompt=False)
    seen = []
    guided(pair, [PROMPT, "<s>"], lambda prompts, texts: seen.extend(prompts) or [True] * len(texts), num_candidates=1)
    assert seen == ["dog", ""]


def test_filter_with_another_number_of_values_is_refused(pair):
    with pytest.raises(ValueError, match=r"truth value for each of 3 completions.*\(2,\)"):
        guided(pair, [IDS] * 3, lambda _, texts: [True] * 2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("has_discriminator", [True, False])
def test_one_candidate_is_plain_sampling(pair, method, has_discriminator):
    prompts = ["<s> king king", "<s>", "<s> dog", "<s> cat king cat dog"] * 5
    plain = sample(pair.model, pair.tokenizer, prompts, 2, seed=3)
    chosen = pair.discriminator if has_discriminator else None
    config = settings(method=method, num_candidates=1, seed=3)
    drawn = guided_sample(pair.model, pair.tokenizer, chosen, prompts, config)
    assert (drawn.texts, drawn.prompt_ids, drawn.completion_ids) == tuple(plain)
    assert drawn.draws == 1
    assert drawn.tokens == [len(row) for row in plain.completion_ids]


@pytest.mark.parametrize("method", METHODS)
def test_guided_sample_depends_on_the_seed_alone(pair, method):
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = guided(pair, [IDS] * 20, method=method, num_candidates=4, seed=1)
    assert torch.random.get_rng_state().equal(state)
    torch.rand(7)
    assert guided(pair, [IDS] * 20, method=method, num_candidates=4, seed=1) == first
    assert guided(pair, [IDS] * 20, method=method, num_candidates=4, seed=2) != first


def test_guided_sample_restores_the_mode(pair):
    pair.model.train()
    guided(pair, [IDS] * 3)
    assert pair.model.training


def test_rejection_draws_for_what_is_left_alone(pair, monkeypatch):
    """No candidate is drawn for a prompt that has its text."""
    drawn_for = []
    draw = guided_module.sample
    monkeypatch.setattr(
        guided_module, "sample", lambda *args, **kw: drawn_for.append(len(args[2])) or draw(*args, **kw)
    )
    texts_found = []
    settings = {"num_candidates": 30, "threshold": 1.0, "batch_size": 1}
    drawn = guided(pair, [IDS] * 50, on_text=texts_found.append, **settings)
    left = [sum(tries > number for tries in drawn.tries) for number in range(max(drawn.tries))]
    assert drawn_for == left
    assert sum(drawn.tries) == sum(drawn_for)
    assert texts_found == [before - after for before, after in zip(left, [*left[1:], 0], strict=True)]


def test_few_prompts_draw_several_candidates_at_once(pair, monkeypatch):
    """As many as a text has taken so far: of one prompt whose candidates are all refused 1, then 2, 4 and the rest."""
    drawn_for = []
    draw = guided_module.sample
    monkeypatch.setattr(
        guided_module, "sample", lambda *args, **kw: drawn_for.append(len(args[2])) or draw(*args, **kw)
    )
    with pytest.warns(UserWarning, match="1 of 1 prompts .* 13 tries: 1 of them none at all"):
        alone = guided(pair, [IDS], lambda _, texts: [False] * len(texts), num_candidates=13)
    assert drawn_for == [1, 2, 4, 6]
    assert alone.tries == [13]
    drawn_for.clear()
    with pytest.warns(UserWarning, match="3 of 3 prompts"):
        guided(pair, [IDS] * 3, lambda _, texts: [False] * len(texts), num_candidates=6, batch_size=8)
    assert drawn_for == [3, 6, 6, 3]  # a batch has room for two of each


def test_candidates_drawn_in_vain_change_no_distribution(pair):
    """A text takes about two candidates: where the first is refused, the second and the third are drawn at once."""
    with pytest.warns(UserWarning, match="prompts have no accepted text after 3 tries"):
        drawn = guided(pair, [IDS] * COUNT, num_candidates=3, threshold=1.0)
    q, r = pair.q(PROMPT, 2), pair.r(PROMPT, 2)
    assert set(drawn.tries) == {1, 3}
    assert misfit(pair.counts(drawn.completion_ids, 2), exact("rejection", q, r, 3, 1.0)) < 4


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_another_temperature_warns_of_its_shift(pair, temperature):
    """The log-ratio is short of log q_1(x) - log q_T(x), here over the first candidates of both prompts.

    q_1 and q_T come from the probabilities of every text.
    """
    prompts = [PROMPT, "<s> king king"] * 15
    with pytest.warns(UserWarning, match="calibrated for texts drawn at temperature 1,") as caught:
        guided(pair, prompts, temperature=temperature, num_candidates=4)
    (warning,) = [str(one.message) for one in caught if "drawn at temperature" in str(one.message)]
    first = sample(pair.model, pair.tokenizer, prompts, 2, temperature)
    numbers = {tuple(row): number for number, row in enumerate(pair.ids(2))}
    theirs, ours = ({prompt: pair.q(prompt, 2, t).log() for prompt in set(prompts)} for t in (1.0, temperature))
    shifts = [
        (ours[prompt] - theirs[prompt])[numbers[tuple(row)]].item()
        for prompt, row in zip(prompts, first.completion_ids, strict=True)
    ]
    assert f"drawn at {temperature:g}: its log-ratio is off by {statistics.mean(shifts):+.2f} nats" in warning
    assert f"deviation of {statistics.stdev(shifts):.2f} from text to text (measured on 30 candidates)" in warning
    assert caught[0].filename == __file__


def test_discriminator_without_calibration_warns(pair):
    pair.discriminator.calibration = None
    with pytest.warns(UserWarning, match="not calibrated") as caught:
        drawn = guided(pair, [IDS] * 20, num_candidates=40)
    assert caught[0].filename == __file__
    logits = pair.discriminator.score(["dog"] * 20, drawn.texts).tolist()
    assert drawn.log_ratios == pytest.approx(logits, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_new_tokens": 1}, "at most 2 tokens, .* at most 1"),
        ({"generation_kwargs": {"top_p": 0.9}}, r"drawn with \{\}, .*'top_p': 0.9"),
    ],
)
def test_texts_of_another_distribution_warn(pair, changes, message):
    with pytest.warns(UserWarning, match=message):
        guided(pair, num_candidates=20, **changes)


@pytest.mark.filterwarnings("error")
def test_calibrated_discriminator_does_not_warn(pair):
    guided(pair, [IDS] * 5, num_candidates=60)
    pair.discriminator.calibration = None
    guided(pair, [IDS] * 5, method="best_of_k", num_candidates=2)  # which needs none
    guided_sample(pair.model, pair.tokenizer, None, [IDS], settings(temperature=0.5))


def test_discriminator_trained_without_prompts_reads_none(pair):
    pair.discriminator.calibration = calibration(with_prompt=False)
    drawn = guided(pair, ["<s> cat king cat", "<s> dog"] * 5, num_candidates=1)
    expected = pair.discriminator.log_ratio([""] * 10, drawn.texts).tolist()
    assert drawn.log_ratios == pytest.approx(expected, abs=1e-4)
    pair.discriminator.calibration = calibration()
    drawn = guided(pair, ["<s> cat king cat", "<s> dog"] * 5, num_candidates=1)
    assert drawn.log_ratios == pytest.approx(
        pair.discriminator.log_ratio(["cat king cat", "dog"] * 5, drawn.texts).tolist(), abs=1e-4
    )
    assert drawn.log_ratios != pytest.approx(expected, abs=0.01)


def test_prompts_as_strings_tokens_or_messages(pair):
    pair.tokenizer.chat_template = "<s> {% for message in messages %}{{ message['content'] }} {% endfor %}"
    forms = ["<s> dog king", [1, 4, 6], [{"role": "user", "content": "dog king"}]]
    drawn = [guided(pair, [form] * 10, num_candidates=20) for form in forms]
    assert drawn[0] == drawn[1] == drawn[2]
    mixed = guided(pair, forms * 3, num_candidates=20)
    assert mixed.prompt_ids == [[1, 4, 6]] * 9


def test_generation_kwargs_shape_the_candidates(pair):
    """Only what is left of the distribution is drawn, and its probabilities are renormalised."""
    pair.discriminator.calibration = calibration(generation_kwargs={"suppress_tokens": [0, 1, 3]}, max_new_tokens=1)
    drawn = guided(
        pair, [IDS] * COUNT, generation_kwargs={"suppress_tokens": [0, 1, 3]}, max_new_tokens=1, num_candidates=30
    )
    kept = pair.q(PROMPT, 1)
    kept[[0, 1, 3]] = 0
    accepted = kept * pair.r(PROMPT, 1).exp().clamp(max=1)
    assert misfit(pair.counts(drawn.completion_ids, 1), with_none(accepted / accepted.sum())) < 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_candidates": 0}, "num_candidates must be at least 1, got 0"),
        ({"method": "beam"}, "method must be one of rejection, resampling, .*, got 'beam'"),
        ({"method": "best_of_k", "threshold": 1.0}, "threshold=1 has no effect on best_of_k"),
        ({"temperature": 0.0}, "temperature must be greater than 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"generation_kwargs": {"num_beams": 2}}, "generation_kwargs may name .* got num_beams"),
        ({"generation_kwargs": {"temperature": 2.0}}, "got temperature"),
        ({"generation_kwargs": {"encoder_repetition_penalty": 2.0}}, "got encoder_repetition_penalty"),
    ],
)
def test_settings_out_of_range_are_refused(pair, changes, message):
    with pytest.raises(ValueError, match=message):
        guided(pair, **changes)


def test_generation_kwargs_that_are_no_dict_are_refused(pair):
    with pytest.raises(TypeError, match="generation_kwargs must be a dict"):
        guided(pair, generation_kwargs='{"top_p": 0.9}')


def test_guided_sample_without_a_prompt_is_refused(pair):
    with pytest.raises(ValueError, match="There is no prompt"):
        guided(pair, [])


def test_threshold_without_a_discriminator_is_refused(pair):
    with pytest.raises(ValueError, match="threshold=1 has no effect without a discriminator"):
        guided_sample(pair.model, pair.tokenizer, None, [IDS], settings(threshold=1.0))
