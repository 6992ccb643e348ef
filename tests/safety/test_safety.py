import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.modeling_outputs import SequenceClassifierOutput
from trl import GRPOTrainer

from hf_mgan.safety import SafetyGate, check_gate, gate_rewards

from ..conftest import VOCABULARY, bert_classifier, texts, word_tokenizer


NAN, INF = float("nan"), float("inf")
PROB = 1 / (1 + torch.tensor(-4.0).exp())  # sigmoid(4) = 0.982, of an unsafe text


class PhraseForSequenceClassification(PreTrainedModel):
    """Gives the label `unsafe` the logit 4 where "king sleeps" stands in a text, else -4, and the others 0."""

    config_class = BertConfig

    def __init__(self, config, unsafe=0):
        super().__init__(config)
        self.scale = nn.Parameter(torch.tensor(4.0))
        self.unsafe = unsafe
        self.shown = []
        self.post_init()

    def forward(self, input_ids, attention_mask, **_):
        self.shown += [row[mask.bool()].tolist() for row, mask in zip(input_ids, attention_mask, strict=True)]
        first, second = VOCABULARY["king"], VOCABULARY["sleeps"]
        found = (input_ids[:, :-1] == first) & (input_ids[:, 1:] == second) & attention_mask[:, 1:].bool()
        logits = torch.zeros(len(input_ids), self.config.num_labels)
        logits[:, self.unsafe] = self.scale * (2.0 * found.any(1) - 1)
        return SequenceClassifierOutput(logits=logits)


def phrase_classifier(num_labels=1, unsafe=0, **config):
    return PhraseForSequenceClassification(
        BertConfig(num_labels=num_labels, max_position_embeddings=48, **config), unsafe
    )


def phrase_at(place, length):
    words = ["the"] * length
    words[place : place + 2] = ["king", "sleeps"]
    return " ".join(words)


# The verdicts


@pytest.mark.parametrize(
    ("config", "label", "expected"),
    [
        ({"num_labels": 1}, None, PROB),
        ({"num_labels": 2, "unsafe": 1}, 1, PROB),  # e^4 / (e^4 + e^0) = sigmoid(4)
        ({"num_labels": 2, "unsafe": 1}, 0, 1 - PROB),
        ({"num_labels": 3, "unsafe": 1}, "1", PROB / (PROB + 2 * (1 - PROB))),  # e^4 / (e^4 + 2)
        ({"num_labels": 3, "unsafe": 2, "problem_type": "multi_label_classification"}, "LABEL_2", PROB),
        ({"num_labels": 3, "unsafe": 2, "problem_type": "multi_label_classification"}, 0, 0.5),
    ],
)
def test_the_probability_is_that_of_the_named_label(pair_tokenizer, config, label, expected):
    gate = SafetyGate(phrase_classifier(**config), label, processing_class=pair_tokenizer)
    probs = gate.unsafe_probs([""], ["the king sleeps"])
    torch.testing.assert_close(probs, torch.tensor([float(expected)]))
    assert probs.dtype == torch.float32


def test_a_completion_at_the_threshold_is_unsafe():
    gate = SafetyGate(lambda completions: [0.29, 0.3, 0.31], threshold=0.3)
    assert gate.is_unsafe(["", "", ""], ["a", "b", "c"]).tolist() == [False, True, True]


@pytest.mark.parametrize("length", [2, 46, 47, 69, 70, 200])
def test_a_phrase_is_found_wherever_it_stands_however_long_the_text(pair_tokenizer, length):
    model = phrase_classifier()
    gate = SafetyGate(model, processing_class=pair_tokenizer)
    completions = [phrase_at(place, length) for place in range(length - 1)] + ["the " * length]
    assert gate.is_unsafe([""] * length, completions).tolist() == [True] * (length - 1) + [False]
    assert max(map(len, model.shown)) <= 48  # the most it can read, with [CLS] and [SEP]


@pytest.mark.parametrize("prompt_length", [1, 21, 22, 23, 100])
def test_a_phrase_is_found_after_a_prompt_of_any_length(pair_tokenizer, prompt_length):
    model = phrase_classifier()
    gate = SafetyGate(model, processing_class=pair_tokenizer, with_prompt=True)
    prompt = "a " * (prompt_length - 1) + "dog"
    completions = [phrase_at(place, 60) for place in range(59)] + ["the " * 60]
    assert gate.is_unsafe([prompt] * 60, completions).tolist() == [True] * 59 + [False]
    assert max(map(len, model.shown)) <= 48
    # Each window follows the last 22 words of the prompt: 48 tokens less three special ones, halved.
    kept = min(prompt_length, 22)
    start = [VOCABULARY["[CLS]"], *[VOCABULARY["a"]] * (kept - 1), VOCABULARY["dog"], VOCABULARY["[SEP]"]]
    assert all(row[: kept + 2] == start for row in model.shown)


def test_a_prompt_is_read_only_if_asked_for(pair_tokenizer, tokenizer):
    prompts, completions = ["the king sleeps", "", "the king sleeps"], [" a dog", " a dog", " a cat"]
    for processing_class in (pair_tokenizer, tokenizer):  # as a pair, and joined
        for with_prompt in (False, True):
            gate = SafetyGate(phrase_classifier(), processing_class=processing_class, with_prompt=with_prompt)
            unsafe = gate.is_unsafe(prompts, completions).tolist()
            assert unsafe == [with_prompt, False, with_prompt]


def test_a_long_prompt_is_cut_in_a_pair_and_read_whole_where_it_is_joined(pair_tokenizer, tokenizer):
    for processing_class, expected in ((pair_tokenizer, False), (tokenizer, True)):
        gate = SafetyGate(phrase_classifier(), processing_class=processing_class, with_prompt=True)
        assert gate.is_unsafe([phrase_at(0, 100)], [" a dog"]).item() == expected


def test_a_tokenizer_that_adds_nothing_and_has_no_padding_reads_an_empty_text():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=word_tokenizer(), eos_token="</s>")
    model = phrase_classifier()
    gate = SafetyGate(model, processing_class=tokenizer)
    assert gate.is_unsafe(["", ""], ["", "king sleeps"]).tolist() == [False, True]
    assert model.shown[0] == [VOCABULARY["</s>"]]


def test_equal_texts_are_read_once_and_all_get_the_verdict(pair_tokenizer):
    model = phrase_classifier()
    gate = SafetyGate(model, processing_class=pair_tokenizer)
    unsafe = gate.is_unsafe([""] * 4, ["king sleeps", "dog", "king sleeps", "dog"])
    assert unsafe.tolist() == [True, False, True, False]
    assert len(model.shown) == 2


def test_messages_are_judged_by_all_their_text(pair_tokenizer):
    gate = SafetyGate(phrase_classifier(), processing_class=pair_tokenizer)
    turn = [{"role": "assistant", "content": "the king sleeps"}]
    turns = [{"role": "assistant", "content": "a cat"}, {"role": "tool", "content": "dog"}, *turn]
    assert gate.is_unsafe([[]] * 3, [turn, turns, turns[:-1]]).tolist() == [True, True, False]


def test_the_classifier_is_frozen_and_read_in_full_precision(pair_tokenizer):
    model = bert_classifier(num_labels=2).train()
    assert model.config.hidden_dropout_prob > 0
    gate = SafetyGate(model, 1, processing_class=pair_tokenizer)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    batch = texts(10)
    plain = gate.unsafe_probs([""] * 10, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(gate.unsafe_probs([""] * 10, batch), plain)
    assert not plain.requires_grad


def test_neither_the_batch_nor_the_neighbours_change_a_probability(pair_tokenizer):
    completions = [text for length in (1, 3, 20, 60) for text in texts(3, length, length)]
    whole, single = (
        SafetyGate(bert_classifier(2), 1, processing_class=pair_tokenizer, batch_size=size).unsafe_probs(
            [""] * 12, completions
        )
        for size in (32, 1)
    )
    torch.testing.assert_close(whole, single, rtol=0, atol=1e-6)
    assert whole.std() > 0.01


def test_a_folder_gives_the_probabilities_of_its_model(tmp_path, pair_tokenizer):
    model = bert_classifier(num_labels=2)
    model.config.id2label = {0: "fine", 1: "toxic"}
    model.config.label2id = {"fine": 0, "toxic": 1}
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    pair_tokenizer.save_pretrained(tmp_path)
    gate = SafetyGate(str(tmp_path), "toxic")
    assert gate.model.dtype == torch.float32
    batch = pair_tokenizer(texts(5), return_tensors="pt")
    reference = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = reference(**batch).logits.softmax(1)[:, 1]
    torch.testing.assert_close(gate.unsafe_probs([""] * 5, texts(5)), expected)


def test_a_classifier_with_adapters_judges_as_it_stands(pair_tokenizer):
    model = get_peft_model(bert_classifier(1), LoraConfig(task_type="SEQ_CLS", init_lora_weights=False))
    plain = SafetyGate(bert_classifier(1), processing_class=pair_tokenizer).unsafe_probs([""] * 5, texts(5))
    adapted = SafetyGate(model, processing_class=pair_tokenizer).unsafe_probs([""] * 5, texts(5))
    assert (adapted - plain).abs().max() > 1e-3


# What is refused


def test_a_label_that_is_missing_or_unknown_is_an_error_that_lists_the_labels(pair_tokenizer):
    for label in (None, "toxic", 2, "2"):
        with pytest.raises(ValueError, match=r"\['LABEL_0', 'LABEL_1'\]"):
            SafetyGate(bert_classifier(2), label, processing_class=pair_tokenizer)


def test_models_that_give_no_trained_probabilities_are_refused(tmp_path, pair_tokenizer):
    config = BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    masked = BertForMaskedLM(config)
    with pytest.raises(TypeError, match="must be a sequence classifier, got BertForMaskedLM"):
        SafetyGate(masked, processing_class=pair_tokenizer)
    masked.save_pretrained(tmp_path / "masked")
    with pytest.raises(ValueError, match=r"\(BertForMaskedLM\) is no trained sequence .*'classifier.bias'"):
        SafetyGate(str(tmp_path / "masked"), 1)
    with pytest.raises(ValueError, match="is a regression"):
        SafetyGate(phrase_classifier(problem_type="regression"), processing_class=pair_tokenizer)
    adapters = get_peft_model(bert_classifier(1), LoraConfig(task_type="SEQ_CLS"))
    adapters.save_pretrained(tmp_path / "adapters")
    with pytest.raises(ValueError, match="AutoPeftModelForSequenceClassification"):
        SafetyGate(str(tmp_path / "adapters"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"threshold": 0.0}, ValueError, r"threshold .* in \(0, 1\], got 0.0"),
        ({"threshold": 1.5}, ValueError, "got 1.5"),
        ({"margin": 0.0}, ValueError, "margin must be greater than 0 and finite, got 0.0"),
        ({"margin": INF}, ValueError, "got inf"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"max_length": 49}, ValueError, "max_length must lie between 7 and .* 48, got 49"),
        ({"max_length": 6}, ValueError, "max_length must lie between 7 and .* 48, got 6"),
        ({"processing_class": "bert"}, TypeError, "must be a fast tokenizer .*, got str"),
    ],
)
def test_a_value_out_of_range_is_an_error_that_says_the_range(pair_tokenizer, arguments, error, message):
    with pytest.raises(error, match=message):
        SafetyGate(phrase_classifier(), **{"processing_class": pair_tokenizer, **arguments})


def test_a_tokenizer_with_nothing_to_pad_with_is_an_error():
    with pytest.raises(ValueError, match=r"Set tokenizer.pad_token and give the tokenizer as processing_class"):
        SafetyGate(phrase_classifier(), processing_class=PreTrainedTokenizerFast(tokenizer_object=word_tokenizer()))


def test_a_function_gets_completions_and_prompts_if_asked_for():
    seen = []

    def judge(*given):
        seen.append(given)
        return torch.tensor([True, False])

    arguments = ["one", "two"], ["a", [{"role": "assistant", "content": "b"}]]
    assert SafetyGate(judge).is_unsafe(*arguments).tolist() == [True, False]
    assert SafetyGate(judge, with_prompt=True).unsafe_probs(*arguments).tolist() == [1.0, 0.0]
    assert seen == [(["a", "b"],), (["one", "two"], ["a", "b"])]


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ([0.5], ValueError, r"one value a completion: 2, got values of shape \(1,\)"),
        ([[0.5, 0.5], [0.5, 0.5]], ValueError, r"shape \(2, 2\)"),
        ([0.5, NAN], ValueError, r"got nan for completion 1: 'second'"),
        ([1.5, 0.5], ValueError, r"got 1.5 for completion 0: 'first'"),
        ([0.5, -0.1], ValueError, r"for completion 1: 'second'"),
        (["unsafe", "safe"], TypeError, "numbers or truth values, one a completion, got list"),
        (None, TypeError, "got NoneType"),
    ],
)
def test_a_function_that_returns_something_else_is_an_error_that_names_it(values, error, message):
    with pytest.raises(error, match=message):
        SafetyGate(lambda completions: values).is_unsafe(["", ""], ["first", "second"])


def test_a_classifier_whose_logits_are_nan_is_an_error(pair_tokenizer):
    model = phrase_classifier()
    model.scale.data.fill_(NAN)
    with pytest.raises(ValueError, match="got nan for completion 0: 'the dog'"):
        SafetyGate(model, processing_class=pair_tokenizer).is_unsafe([""], ["the dog"])


def test_what_is_no_classifier_or_belongs_to_another_kind_is_refused(tokenizer):
    async def judge(completions):
        return [True] * len(completions)

    for classifier in (judge, 3):
        with pytest.raises(TypeError, match=r"a function \(not async\)"):
            SafetyGate(classifier)
    for name, value in {"label": 1, "processing_class": tokenizer, "max_length": 8}.items():
        with pytest.raises(ValueError, match=f"{name} belongs to a sequence classifier"):
            SafetyGate(len, **{name: value})
    with pytest.raises(ValueError, match="One prompt a completion is needed, got 1 and 2"):
        SafetyGate(len).is_unsafe([""], ["a", "b"])


# The ranking


def test_unsafe_completions_share_one_total_below_the_least_safe_one():
    # Weighted totals: 1 * 2 + 2 * 1 = 4; 1 * 1 + 2 * 0.5 = 2; unsafe 1 * 9 + 2 * 9 = 27; unsafe -50. Least safe 2.
    rewards = torch.tensor([[2.0, 1.0], [1.0, 0.5], [9.0, 9.0], [-50.0, 0.0]])
    # A second group without unsafe ones, one with a reward that does not apply, one without any.
    rewards = torch.cat([rewards, torch.tensor([[1.0, 1.0], [NAN, 3.0], [NAN, NAN], [0.0, 0.0]])])
    before = rewards.clone()
    unsafe = torch.tensor([False, False, True, True] + [False] * 4)
    gated = gate_rewards(rewards, torch.tensor([1.0, 2.0]), unsafe, 4, margin=0.5)
    expected = torch.tensor(
        [
            [2.0, 1.0, 0.0],
            [1.0, 0.5, 0.0],
            [NAN, NAN, 1.5],
            [NAN, NAN, 1.5],
            [1.0, 1.0, 0.0],
            [NAN, 3.0, 0.0],
            [NAN, NAN, NAN],
            [0.0, 0.0, 0.0],
        ]
    )
    torch.testing.assert_close(gated, expected, equal_nan=True)
    torch.testing.assert_close(rewards, before, equal_nan=True)


def test_a_group_without_a_safe_reward_is_taken_out():
    rewards = torch.tensor([[1.0], [2.0], [3.0], [NAN]])
    gated = gate_rewards(rewards, torch.ones(1), torch.tensor([True, True, True, False]), 2)
    assert gated.isnan().all()


def random_case(seed, scale):
    """Return two rewards of 8 groups of 6, some of them nan and two infinite, their weights, and verdicts."""
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(48, 2, generator=generator)
    unsafe = torch.rand(48, generator=generator) < torch.rand(8, generator=generator).repeat_interleave(6)
    rewards[unsafe] *= scale
    rewards[torch.rand(48, 2, generator=generator) < 0.1] = NAN
    places = unsafe.nonzero()[:, 0]
    rewards[places[0], 0], rewards[places[-1], 0] = INF, -INF
    weights = torch.rand(2, generator=generator) * 3
    return rewards, weights, unsafe


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e8, 1e30])
def test_every_unsafe_total_is_the_margin_below_every_safe_one_of_its_group(scale):
    compared = 0
    for seed in range(50):
        rewards, weights, unsafe = random_case(seed, scale)
        gated = gate_rewards(rewards, weights, unsafe, 6, margin=0.7)
        totals = (gated * torch.cat([weights, torch.ones(1)])).nansum(1)  # as TRL adds them
        totals[gated.isnan().all(1)] = NAN
        for group, judged in zip(totals.view(8, 6), unsafe.view(8, 6), strict=True):
            low, high = group[judged & ~group.isnan()], group[~judged & ~group.isnan()]
            if len(low) and len(high):
                compared += 1
                assert low.unique().numel() == 1
                assert (high.min() - low.max() - 0.7).abs() < 1e-6
    assert compared > 200


def test_the_order_holds_beside_safe_rewards_so_great_that_the_margin_is_rounded_away():
    gated = gate_rewards(torch.tensor([[1e9], [2e9], [5e9]]), torch.ones(1), torch.tensor([False, False, True]), 3)
    assert gated[2, 1] < 1e9


def test_an_infinite_reward_of_a_safe_completion_is_an_error_and_one_of_an_unsafe_completion_is_not():
    unsafe = torch.tensor([False, True, False])
    for value in (INF, -INF):
        with pytest.raises(ValueError, match=r"Completion 2 has the rewards \[-?inf\]"):
            gate_rewards(torch.tensor([[1.0], [0.0], [value]]), torch.ones(1), unsafe, 3)
        gated = gate_rewards(torch.tensor([[1.0], [value], [2.0]]), torch.ones(1), unsafe, 3)
        assert gated[:, 1].tolist() == [0.0, -1.0, 0.0]  # the least safe total is 1, the margin is 2


@pytest.mark.parametrize(("rows", "verdicts", "weights"), [(5, 5, 1), (6, 5, 1), (6, 6, 2)])
def test_shapes_that_do_not_fit_are_an_error(rows, verdicts, weights):
    with pytest.raises(ValueError, match="do not fit groups of 3 completions"):
        gate_rewards(torch.zeros(rows, 1), torch.ones(weights), torch.zeros(verdicts, dtype=torch.bool), 3)


class Rewarded(GRPOTrainer):
    """TRL's trainer, told the rewards of the next completions."""

    def _calculate_rewards(self, *_):
        return self.told


@pytest.fixture
def advantages_of(generator, tokenizer, dataset, make_config):
    def compute(rewards, weights, **settings):
        args = make_config(per_device_train_batch_size=48, num_generations=6, reward_weights=weights, **settings)
        columns = [lambda **_: [], lambda **_: [], lambda **_: []]
        for column, name in zip(columns, ("one", "two", "safety_gate"), strict=True):
            column.__name__ = name
        data = dataset.rename_column("text", "prompt")
        trainer = Rewarded(generator, columns, args, data, processing_class=tokenizer)
        trainer.told = rewards
        return trainer._generate_and_score_completions([{"prompt": "a"}] * 48)["advantages"]

    return compute


@pytest.mark.parametrize("scale_rewards", ["none", "group", "batch"])
def test_the_order_holds_for_the_advantages_that_trl_makes_of_it(advantages_of, scale_rewards):
    rewards, weights, unsafe = random_case(3, 1e8)
    unsafe[:6] = True
    rewards[:6, 0] = torch.arange(6.0) * 1e6  # a group that is unsafe throughout, with much to win
    gated = gate_rewards(rewards, weights, unsafe, 6, margin=0.7)
    advantages = advantages_of(gated, [*weights.tolist(), 1.0], scale_rewards=scale_rewards)
    assert advantages.isfinite().all()
    assert torch.equal(advantages[:6], torch.zeros(6))
    compared = 0
    unscored = gated.isnan().all(1).view(8, 6)
    for values, judged, without in zip(advantages.view(8, 6), unsafe.view(8, 6), unscored, strict=True):
        if judged.any() and (~judged & ~without).any():
            compared += 1
            assert values[judged].unique().numel() == 1
            assert values[judged].max() < 0  # and so below a safe completion without a reward, which has 0
            gap = values[~judged & ~without].min() - values[judged].max()
            assert gap > (0.7 - 1e-6 if scale_rewards == "none" else 0)
    assert compared >= 3


def test_normalising_each_reward_by_itself_breaks_the_order_and_is_refused(advantages_of, make_config):
    # The unsafe completion is one of six, so its normalised penalty is -5/6 / sqrt(5/36) = -2.24; a safe one that is
    # the worst of five by a reward of weight 2 gets 2 * -4/5 / sqrt(4/25) + 0.45 = -3.55.
    rewards = torch.zeros(48, 2)
    rewards[:, 0] = torch.arange(48) % 6 == 0
    rewards[1::6, 1] = -30.0
    unsafe = torch.arange(48) % 6 == 0
    gated = gate_rewards(rewards, torch.tensor([1.0, 2.0]), unsafe, 6)
    settings = {"multi_objective_aggregation": "normalize_then_sum"}
    values = advantages_of(gated, [1.0, 2.0, 1.0], **settings).view(8, 6)
    assert (values[:, 0] > values[:, 1]).all()
    with pytest.raises(ValueError, match="multi_objective_aggregation='normalize_then_sum' divides every reward"):
        check_gate(make_config(**settings))


def test_leaving_truncated_completions_out_of_the_loss_is_refused(make_config):
    check_gate(make_config())
    with pytest.raises(ValueError, match="mask_truncated_completions=True leaves truncated completions out"):
        check_gate(make_config(mask_truncated_completions=True))


# The gate in a game


def says(*words):
    """Return a judge to which completions with one of these words are unsafe."""
    return lambda completions: [not set(words).isdisjoint(text.split()) for text in completions]


COMMON = says("sleeps", "near", "king")  # what the untrained generator of the tests likes to say


def pays_for_what_is_unsafe(completions, **_):
    return [float(count) for count in COMMON(completions)]


def pays_now_and_then(completions, **_):
    return [None if len(set(text)) % 2 else len(text) / 10 for text in completions]


def batches(trainer):
    """Return a list that fills with the completions and advantages of each batch of a game, and with its rewards."""
    seen = []
    generate = trainer._generate_and_score_completions

    def watched(inputs):
        output = generate(inputs)
        logs = {name: list(values) for name, values in trainer._logs["rewards"].items()}
        seen.append((list(trainer._logs["completion"]), output["advantages"], logs))
        return output

    trainer._generate_and_score_completions = watched
    return seen


def assert_ranked(advantages, unsafe, group_size):
    """Return in how many groups there was something to rank."""
    compared = 0
    for values, judged in zip(advantages.view(-1, group_size), unsafe.view(-1, group_size), strict=True):
        if judged.any() and not judged.all():
            compared += 1
            assert values[judged].max() < values[~judged].min()
        elif judged.all():
            assert not values.any()
    return compared


@pytest.mark.parametrize("scale_rewards", ["none", "group", "batch"])
@pytest.mark.parametrize("weight", [1e6, -1e6])
def test_in_a_game_no_unsafe_completion_ranks_above_a_safe_one(make_trainer, make_config, scale_rewards, weight):
    args = make_config(
        discriminator_weight=weight,
        scale_rewards=scale_rewards,
        per_device_train_batch_size=32,
        num_generations=8,
        max_steps=2,
    )
    trainer = make_trainer(args, safety_gate=COMMON)
    seen = batches(trainer)
    paid = []
    play = trainer._turn.play

    def watched(*arguments, **keywords):
        rewards, *rest = play(*arguments, **keywords)
        paid.append(weight * rewards)
        return rewards, *rest

    trainer._turn.play = watched
    trainer.train()
    compared = without = 0
    for (completions, advantages, _), rewards in zip(seen, paid, strict=True):
        unsafe = torch.tensor(COMMON(completions))
        compared += assert_ranked(advantages, unsafe, 8)
        groups = zip(rewards.view(4, 8), unsafe.view(4, 8), strict=True)
        without += sum(bool(judged.any() and values[judged].max() > values.min()) for values, judged in groups)
    assert compared >= 6
    assert without >= 6  # groups in which the discriminator alone would have it otherwise


def test_further_rewards_are_no_price_either_and_count_among_safe_completions(make_trainer, make_config):
    args = make_config(
        reward_weights=[1e4, 0.5],
        discriminator_weight=2.0,
        per_device_train_batch_size=32,
        num_generations=8,
        scale_rewards="none",
        max_steps=2,
    )
    gate = SafetyGate(COMMON, margin=0.7)
    trainer = make_trainer(args, reward_funcs=[pays_for_what_is_unsafe, pays_now_and_then], safety_gate=gate)
    names = ["pays_for_what_is_unsafe", "pays_now_and_then", "discriminator", "safety_gate"]
    assert trainer.reward_func_names == names
    assert trainer.reward_weights.tolist() == [1e4, 0.5, 2.0, 1.0]
    seen = batches(trainer)
    trainer.train()
    for (completions, advantages, logs), entry in zip(seen, trainer.state.log_history, strict=False):
        unsafe = torch.tensor(COMMON(completions))
        assert assert_ranked(advantages, unsafe, 8) >= 3
        columns = torch.tensor([logs[name] for name in names], dtype=torch.float64)
        assert columns[:3, unsafe].isnan().all()  # what they would have earned does not count
        assert torch.equal(columns[0, ~unsafe], torch.zeros(int((~unsafe).sum()), dtype=torch.float64))
        assert torch.equal(columns[3, ~unsafe], torch.zeros(int((~unsafe).sum()), dtype=torch.float64))
        expected = torch.tensor([NAN if value is None else value for value in pays_now_and_then(completions)])
        assert torch.equal(columns[1, ~unsafe].isnan(), expected[~unsafe].isnan())
        # Among the safe ones advantages differ as the weighted rewards do.
        totals = (0.5 * columns[1].nan_to_num() + 2 * columns[2]).float()
        for values, judged, total in zip(advantages.view(4, 8), unsafe.view(4, 8), totals.view(4, 8), strict=True):
            if not judged.all():
                differences = (values - total)[~judged]
                torch.testing.assert_close(differences - differences.mean(), torch.zeros_like(differences))
            if judged.any() and not judged.all():
                assert (values[~judged].min() - values[judged]).numpy() == pytest.approx(0.7, abs=1e-5)
        assert entry["rewards/pays_for_what_is_unsafe/mean"] == 0


def test_the_rate_of_unsafe_completions_is_logged_in_training_and_in_evaluation(make_trainer, make_config, dataset):
    verdicts = []

    def judge(completions):
        verdicts.append(COMMON(completions))
        return verdicts[-1]

    args = make_config(
        per_device_train_batch_size=16,
        per_device_eval_batch_size=4,
        num_generations_eval=2,
        max_steps=2,
        discriminator_warmup_steps=2,
        eval_strategy="steps",
        eval_steps=2,
    )
    trainer = make_trainer(args, eval_dataset=dataset.select(range(4)), safety_gate=judge)
    trainer.train()
    # The warm-up, whose batches teach the generator nothing, asks for no verdicts.
    assert [len(batch) for batch in verdicts] == [16, 16, 4, 4]
    shares = [sum(batch) / len(batch) for batch in verdicts]
    assert 0 < sum(shares) < 4
    history = trainer.state.log_history
    assert [entry["safety/unsafe_rate"] for entry in history if "safety/unsafe_rate" in entry] == shares[:2]
    evaluation = next(entry for entry in history if "eval_loss" in entry)
    assert evaluation["eval_safety/unsafe_rate"] == pytest.approx((shares[2] + shares[3]) / 2)


def test_a_word_that_is_unsafe_goes_although_another_reward_pays_for_it(make_trainer, make_config):
    args = make_config(
        reward_weights=[10.0],
        per_device_train_batch_size=32,
        num_generations=8,
        max_completion_length=6,
        learning_rate=2e-2,
        lr_scheduler_type="constant",
        max_steps=8,
    )
    trainer = make_trainer(args, reward_funcs=pays_for_what_is_unsafe, safety_gate=COMMON)
    trainer.train()
    rates = [entry["safety/unsafe_rate"] for entry in trainer.state.log_history if "loss" in entry]
    assert rates[0] > 0.5
    assert sum(rates[-3:]) / 3 < 0.15


def test_the_classifier_of_the_gate_stands_still_and_belongs_to_no_player(make_trainer, make_config, pair_tokenizer):
    judge = bert_classifier(num_labels=2, seed=3).train()
    before = {name: value.clone() for name, value in judge.state_dict().items()}
    gate = SafetyGate(judge, 1, processing_class=pair_tokenizer)
    trainer = make_trainer(make_config(max_steps=2), safety_gate=gate)
    trainer.train()
    assert all(torch.equal(before[name], value) for name, value in judge.state_dict().items())
    assert not judge.training
    own = {id(parameter) for parameter in judge.parameters()}
    for optimizer in (trainer.optimizer, trainer.discriminator.optimizer):
        trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        assert trained
        assert trained.isdisjoint(own)
    assert own.isdisjoint(id(parameter) for parameter in trainer.model.parameters())
    assert all(parameter.grad is None for parameter in judge.parameters())


def test_the_gate_reads_prompts_as_plain_text_if_asked_to(make_trainer, make_config, tokenizer, dataset):
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}"
    talk = [[{"role": "user", "content": "the dog"}, {"role": "assistant", "content": "runs ."}]] * 8
    for data, prompt in (
        (dataset, ""),  # of a text alone the prompt is the start of the sequence
        (Dataset.from_dict({"prompt": ["a cat"] * 8, "completion": ["runs ."] * 8}), "a cat"),
        (Dataset.from_dict({"messages": talk}), "the dog"),
    ):
        seen = []

        def judge(prompts, completions, seen=seen):
            seen.append((prompts, completions))
            return [False] * len(completions)

        gate = SafetyGate(judge, with_prompt=True)
        make_trainer(make_config(max_steps=1), train_dataset=data, safety_gate=gate).train()
        ((prompts, completions),) = seen
        assert prompts == [prompt] * 4
        assert all(isinstance(completion, str) for completion in completions)


def safety_gate(completions, **_):
    return [0.0] * len(completions)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"multi_objective_aggregation": "normalize_then_sum"}, "can outweigh the safety gate"),
        ({"mask_truncated_completions": True}, "leaves truncated completions out of the loss"),
    ],
)
def test_settings_that_would_break_the_order_are_refused_before_anything_loads(
    make_trainer, make_config, monkeypatch, settings, message
):
    def loaded(*_, **__):
        raise AssertionError("a player was loaded first")

    monkeypatch.setattr("hf_mgan.trainer.load_discriminator", loaded)
    with pytest.raises(ValueError, match=message):
        make_trainer(make_config(**settings), safety_gate=COMMON)


def test_a_gate_that_would_be_trained_or_misnamed_is_refused(make_trainer, pair_tokenizer):
    gate = SafetyGate(bert_classifier(), processing_class=pair_tokenizer)
    with pytest.raises(ValueError, match="One model is given as safety gate and as discriminator"):
        make_trainer(discriminator=gate.model, safety_gate=gate)
    for given in (COMMON, None):
        with pytest.raises(ValueError, match="called 'safety_gate', which names this trainer's own: rename it"):
            make_trainer(reward_funcs=safety_gate, safety_gate=given)
    with pytest.raises(TypeError, match="must be a Hub id, a folder, a sequence classifier, or a function"):
        make_trainer(safety_gate=3)
