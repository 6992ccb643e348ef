"""Where texts end: completions, the references beside them, and those that the generator is held to."""

import pytest
import torch
from datasets import Dataset

from ..kinds_of_tokenizers import gemma, gpt2, llama_with_eos, qwen
from ..test_shapes import assistant, user


def generator_of(tokenizer, **special):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 128, "initializer_range": 0.5}
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes, **special))


def negative_log_likelihood(model, prompt_ids, completion_ids):
    """By hand: one text, its prompt, a forward pass, and the mean over the tokens of the completion."""
    logps = model(torch.tensor([prompt_ids + completion_ids])).logits[0].log_softmax(-1)
    places = range(len(prompt_ids) - 1, len(prompt_ids) + len(completion_ids) - 1)
    return -sum(logps[at, token].item() for at, token in zip(places, completion_ids, strict=True)) / len(
        completion_ids
    )


@pytest.fixture
def trainer_of(make_trainer, make_config):
    def make(tokenizer, rows, model=None, **changes):
        data = Dataset.from_list(rows)
        settings = {"per_device_eval_batch_size": 2, "num_generations_eval": 1, "max_completion_length": 24, **changes}
        model = model or generator_of(tokenizer, eos_token_id=tokenizer.eos_token_id)
        return make_trainer(
            make_config(**settings),
            model=model,
            train_dataset=data,
            eval_dataset=data.select(range(2)),
            processing_class=tokenizer,
        )

    return make


def test_anchor_ends_an_answer_as_its_template_does(trainer_of):
    """Gemma's answers end in <end_of_turn>, and its tokenizer's end token is another one."""
    tokenizer = gemma()
    talk = [user("Who?"), assistant("The dog.")]
    trainer = trainer_of(tokenizer, [{"messages": talk}] * 8, real_text_coef=1.0)
    measured = trainer.evaluate()["eval_generator/real_nll"]
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    prompt = tokenizer.apply_chat_template(talk[:1], add_generation_prompt=True, return_dict=True)["input_ids"]
    answer = [*tokenizer.encode("The dog.", add_special_tokens=False), end]
    expected = negative_log_likelihood(trainer.model.eval(), prompt, answer)
    assert measured == pytest.approx(expected, abs=1e-4)
    wrong = negative_log_likelihood(trainer.model, prompt, [*answer[:-1], tokenizer.eos_token_id])
    assert abs(expected - wrong) > 0.01


def test_generation_ends_where_the_template_ends_an_answer(trainer_of):
    tokenizer = gemma()
    trainer = trainer_of(tokenizer, [{"messages": [user("Who?"), assistant("The dog.")]}] * 8, max_steps=1)
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert end in trainer.eos_token_ids
    assert end in trainer.generation_config.eos_token_id
    trainer.train()
    for ids in trainer._reward.round.completion_ids:
        assert end not in ids[:-1]


def test_generation_that_ends_at_a_plain_token(trainer_of):
    """A generator that ends at a new line: neither side has one, and real texts end at their first one too."""
    tokenizer = gpt2()
    line = tokenizer.encode("\n")[0]
    model = generator_of(tokenizer)
    model.generation_config.eos_token_id = [line, tokenizer.eos_token_id]
    trainer = trainer_of(tokenizer, [{"text": "The dog\nsees a cat."}] * 8, model, max_steps=2)
    seen = []
    update = trainer.discriminator.update
    trainer.discriminator.update = lambda *args, **kwargs: seen.append(args) or update(*args, **kwargs)
    trainer.train()
    for _, completions, references, _ in seen:
        assert set(references) == {"The dog"}
        assert not any("\n" in text for text in completions)
    assert {tuple(row[-1:]) for row in trainer._reward.round.real.completion_ids} == {(line,)}


def test_prompt_of_a_tokenizer_that_appends_an_end(trainer_of):
    tokenizer = llama_with_eos()
    trainer = trainer_of(tokenizer, [{"prompt": "The dog", "completion": " sees a cat"}] * 8, real_text_coef=1.0)
    [ids] = trainer._tokenize_prompts(["The dog"])[0]
    assert ids == tokenizer("The dog")["input_ids"][:-1]
    measured = trainer.evaluate()["eval_generator/real_nll"]
    whole = tokenizer("The dog sees a cat")["input_ids"]
    expected = negative_log_likelihood(trainer.model.eval(), ids, whole[len(ids) :])
    assert measured == pytest.approx(expected, abs=1e-4)


def test_thoughts_that_a_template_adds_are_no_part_of_an_answer(trainer_of):
    """A template may write an empty thought before an answer, which the discriminator is not to learn."""
    tokenizer = qwen()
    template = tokenizer.chat_template
    try:
        tokenizer.chat_template = template.replace(
            "m['content']", "('(think)' if m['role'] == 'assistant' else '') + m['content']"
        )
        trainer = trainer_of(tokenizer, [{"messages": [user("Who?"), assistant("The dog.")]}] * 8)
        trainer.evaluate()
        assert set(trainer._reward.round.real.texts) == {"The dog."}
    finally:
        tokenizer.chat_template = template
