"""The cards of both models: what their metadata say, and that their code does what it says."""

import math
import re
import shlex
import warnings

import pytest
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from peft import AutoPeftModelForCausalLM, LoraConfig
from transformers import AutoModelForCausalLM, HfArgumentParser

from hf_mgan import GeneratorEvaluator, SafetyGate
from hf_mgan.cli.generate import GenerateArguments
from hf_mgan.decoding import guided_sample
from hf_mgan.training.card_metrics import eval_results

from ..conftest import bert_classifier, causal_generator, texts
from ..decoding.conftest import calibration
from ..hub_server import metadata_faults


CHAT = (
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}king {% endif %}"
)


def lora(*names):
    return LoraConfig(r=2, target_modules=list(names))


@pytest.fixture
def card_of(tmp_path):
    """Write the card of a trainer, and return it with its metadata, which the Hub has no fault to find with."""

    def make(trainer, **kwargs):
        trainer.create_model_card(**kwargs)
        path = tmp_path / "out" / "README.md"
        assert metadata_faults(path.read_text()) == []
        card = ModelCard.load(path)
        assert metadata_load(path) == card.data.to_dict()
        return card

    return make


def of_hub(trainer):
    trainer.accelerator.unwrap_model(trainer.model).config._name_or_path = "org/g"
    trainer.discriminator.model.config._name_or_path = "org/d"
    return trainer


@pytest.mark.parametrize("adapters", [False, True])
def test_metadata_name_library_and_bases(make_trainer, card_of, adapters):
    changes = {"peft_config": lora("c_attn"), "discriminator_peft_config": lora("query")} if adapters else {}
    data = card_of(of_hub(make_trainer(**changes)), dataset_name="org/data", tags="mine").data.to_dict()
    assert data["base_model"] == ["org/g", "org/d"]
    assert data["library_name"] == ("peft" if adapters else "transformers")
    assert data["base_model_relation"] == ("adapter" if adapters else "finetune")
    assert data["datasets"] == ["org/data"]
    assert data["pipeline_tag"] == "text-generation"
    assert {"trl", "hf-mgan", "gan", "generated_from_trainer", "mine"} <= set(data["tags"])
    assert ("lora" in data["tags"]) == adapters
    assert "licence" not in data


def test_metadata_name_no_folder(make_trainer, card_of, tmp_path):
    trainer = make_trainer(peft_config=lora("c_attn"))
    trainer.accelerator.unwrap_model(trainer.model).config._name_or_path = str(tmp_path)
    trainer.hub_model_id = "someone/out"
    card = card_of(trainer, dataset_name=[str(tmp_path / "data.jsonl"), "org/data"])
    assert "base_model" not in card.data.to_dict()
    assert card.data.datasets == ["org/data"]
    assert "a model that was loaded from a folder" in card.text
    assert str(tmp_path) not in card.text.replace(str(tmp_path / "data.jsonl"), "")


def test_card_is_called_as_its_repository(make_trainer, card_of):
    trainer = make_trainer()
    assert "\n# out\n" in card_of(trainer).text
    trainer.hub_model_id = "someone/story-teller"
    assert "\n# story-teller\n" in card_of(trainer).text
    assert "None" not in card_of(trainer).text
    assert "time machine" not in card_of(trainer).text


@pytest.mark.parametrize("adapters", [False, True])
def test_every_save_has_both_cards(make_trainer, make_config, tmp_path, adapters):
    changes = {"peft_config": lora("c_attn"), "discriminator_peft_config": lora("query")} if adapters else {}
    trainer = make_trainer(make_config(max_steps=1, save_strategy="steps", save_steps=1), **changes)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    for folder, place in (("saved", "discriminator"), ("out/checkpoint-1", "discriminator/model")):
        card = ModelCard.load(tmp_path / folder / "README.md")
        of_discriminator = ModelCard.load(tmp_path / folder / place / "README.md")
        for one, task in ((card, "text-generation"), (of_discriminator, "text-classification")):
            assert metadata_faults(str(one)) == []
            assert one.data.pipeline_tag == task
            assert one.data.library_name == ("peft" if adapters else "transformers")
            assert "[More Information Needed]" not in one.text
        assert card.text.startswith("\n# out\n")
        assert of_discriminator.text.startswith("\n# Discriminator\n")


def test_card_of_the_user_stays(make_trainer, tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "README.md").write_text("---\nlicense: mit\n---\n# By hand\n")
    make_trainer().save_model(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "README.md").read_text().endswith("# By hand\n")


def python_of(section):
    return section.split("```python\n")[1].split("```")[0]


@pytest.mark.parametrize("adapters", [False, True])
@pytest.mark.parametrize("kind", ["text", "prompt", "messages"])
def test_quick_start_fits_the_data(make_trainer, make_config, tokenizer, tmp_path, kind, adapters, capsys):
    message = [{"role": "user", "content": "the dog"}]
    rows = {
        "text": {"text": texts(8)},
        "prompt": {"prompt": ["the dog"] * 8, "completion": texts(8)},
        "messages": {"messages": [[*message, {"role": "assistant", "content": text}] for text in texts(8)]},
    }[kind]
    tokenizer.chat_template = CHAT
    causal_generator().save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    trainer = make_trainer(
        make_config(max_steps=1),
        model=str(tmp_path / "base"),
        peft_config=lora("c_attn") if adapters else None,
        train_dataset=Dataset.from_dict(rows),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model()
    section = (tmp_path / "out" / "README.md").read_text().split("## Quick start")[1]
    code, scope = python_of(section), {}
    assert ("apply_chat_template" in code) == (kind == "messages")
    assert {"text": '"<s>"', "prompt": '"the dog"', "messages": '"content": "the dog"'}[kind] in code
    exec(code, scope)
    assert isinstance(capsys.readouterr().out.splitlines()[-1], str)
    loader = AutoPeftModelForCausalLM if adapters else AutoModelForCausalLM
    ids = scope["inputs"]["input_ids"]
    expected = loader.from_pretrained(tmp_path / "out")(ids).logits
    torch.testing.assert_close(scope["generator"](ids).logits, expected)
    torch.testing.assert_close(trainer.model.eval()(ids).logits, expected)


def test_card_shows_curves_samples_and_settings(make_trainer, make_config, tmp_path, card_of):
    trainer = make_trainer(make_config(max_steps=20, discriminator_reward="log_d", logging_steps=1))
    trainer.train()
    card = card_of(trainer)
    curves = card.text.split("### Curves")[1].split("##")[0]
    steps = [int(step) for step in re.findall(r"^\| (\d+) \|", curves, re.MULTILINE)]
    assert steps[0] == 1
    assert steps[-1] == 20
    assert len(steps) == 8
    last = [entry for entry in trainer.state.log_history if "discriminator/value" in entry][-1]
    row = f"| 20 | {last['discriminator/real_prob']:.3f} | {last['discriminator/fake_prob']:.3f} |"
    assert row in curves
    samples = re.findall(r"```text\n(.*?)\n```", card.text.split("## Samples")[1].split("##")[0], re.DOTALL)
    assert samples == [text or "(nothing)" for text in list(trainer._logs["completion"])[:4]]
    for row in (
        "| the generator's reward | `log_d` |",
        "| max_completion_length | `8` |",
        "| learning_rate | `0.01` |",
    ):
        assert row in card.text
    assert "| optim | `adamw_torch" in card.text
    assert "- hf_mgan: " in card.text


def test_samples_are_of_different_prompts(make_trainer, card_of):
    trainer = make_trainer()
    trainer._logs["prompt"].extend(["a dog", "a dog", "a cat", "a cat"])
    trainer._logs["completion"].extend(["1", "2", "3", "4"])
    section = card_of(trainer).text.split("## Samples")[1].split("## Training")[0]
    assert re.findall(r"```text\n(.*?)\n```", section) == ["a dog", "1", "a cat", "3"]


def test_evaluation_is_a_model_index(make_trainer, make_config, card_of):
    held_out = Dataset.from_dict({"text": texts(32, seed=1)})
    trainer = make_trainer(
        make_config(max_steps=1, eval_strategy="steps", eval_steps=1, per_device_eval_batch_size=4),
        eval_dataset=held_out.select(range(8)),
        evaluator=GeneratorEvaluator(held_out, num_samples=16),
    )
    trainer.train()
    card = card_of(trainer, dataset_name="org/data")
    (model,) = metadata_index = card.data.to_dict()["model-index"]
    name, results = model_index_to_eval_results(metadata_index)
    assert name == model["name"] == "out"
    assert eval_results_to_model_index(name, results) == metadata_index
    found = {result.metric_type: result for result in results}
    entry = [entry for entry in trainer.state.log_history if "eval_discriminator/value" in entry][-1]
    result = found["discriminator_value"]
    assert result.metric_value == round(entry["eval_discriminator/value"], 6)
    assert (result.dataset_type, result.task_type) == ("org/data", "text-generation")
    assert found["samples_self_bleu"].metric_name == "self-BLEU"
    assert not {name for name in found if name.startswith(("rewards_discriminator", "reward_"))}  # of training alone
    assert "## Evaluation" in card.text
    assert f"| self-BLEU | {entry['eval_samples/self_bleu']:.3f} |" in card.text


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("eval_samples/c2st_auc", "C2ST AUC"),
        ("eval_easy_held_out/self_bleu", "self-BLEU of real texts, easy"),
        ("eval_discriminator/value", "V(D, G)"),
        ("eval_rewards/length/mean", "reward length"),
        ("eval_generator/real_nll", "negative log-likelihood of real text, in nats per token"),
        ("eval_rewards/discriminator/mean", None),
        ("eval_rewards/safety_gate/mean", None),
        ("eval_discriminator/loss", None),
        ("eval_runtime", None),
    ],
)
def test_what_of_an_evaluation_is_shown(name, title):
    results = eval_results([{"step": 1, name: 0.5}, {"step": 2, name: math.nan}], [])
    assert [result.metric_name for result in results or []] == ([] if title is None else [title])


def test_card_without_evaluation_has_no_model_index(make_trainer, card_of):
    card = card_of(make_trainer())
    assert not {"model-index", "model_name"} & set(card.data.to_dict())
    assert "## Evaluation" not in card.text


def test_safety_stands_in_the_card(make_trainer, make_config, card_of):
    gate = SafetyGate(lambda completions: ["dog" in text for text in completions])
    trainer = make_trainer(make_config(max_steps=2), safety_gate=gate)
    trainer.train()
    trainer._logs["completion"].extend(["the dog", "a cat", "two", "three"])
    text = card_of(trainer).text
    section = text.split("## Safety")[1].split("\n## ")[0]
    rates = [entry["safety/unsafe_rate"] for entry in trainer.state.log_history if "safety/unsafe_rate" in entry]
    assert f"| at step 2 | {rates[-1]:.4f} |" in section
    assert "since it takes them for unsafe: 1." in section
    assert "the dog" not in text.split("## Samples")[1].split("\n## ")[0]
    assert "## Safety" not in card_of(make_trainer()).text


def test_label_of_the_discriminator_says_what_it_means(make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.save_model()
    card = (tmp_path / "out" / "discriminator" / "README.md").read_text()
    assert "| real | real text: the higher its logit, the more real; sigmoid(logit) = P(real) |" in card
    assert "LABEL_" not in card
    assert trainer.discriminator.model.config.id2label == {0: "real"}


def test_uncalibrated_discriminator_chooses_the_best(
    make_trainer, make_config, generator, tokenizer, tmp_path, capsys
):
    """Its logits are no log-ratios, but they are in order; of several labels the card says which one is real."""
    generator.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    trainer = make_trainer(
        make_config(discriminator_label="LABEL_1"),
        model=str(tmp_path / "base"),
        discriminator=bert_classifier(num_labels=2),
    )
    trainer.save_model()
    section = (tmp_path / "out" / "README.md").read_text().split("### Sampling with both models")[1]
    assert "The discriminator is not calibrated" in section
    command = shlex.split(section.split("```bash")[1].split("```")[0])
    (script,) = HfArgumentParser(GenerateArguments).parse_args_into_dataclasses(command[2:])
    assert (script.method, script.num_candidates, script.max_new_tokens) == ("best_of_k", 8, 8)
    assert script.discriminator_label == "real"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The discriminator is not calibrated")
        exec(python_of(section), scope := {})
    assert scope["discriminator"].label == 1
    expected = guided_sample(trainer.model.eval(), tokenizer, trainer.discriminator, ["<s>"], scope["config"])
    assert capsys.readouterr().out.splitlines()[-1] == str(expected.texts)


@pytest.mark.parametrize("adapters", [False, True])
def test_model_card_lines_sample_with_both_models(make_trainer, generator, tokenizer, tmp_path, adapters, capsys):
    generator.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    bert_classifier().save_pretrained(tmp_path / "classifier")
    configs = [lora(name) if adapters else None for name in ("c_attn", "query")]
    trainer = make_trainer(
        model=str(tmp_path / "base"),
        processing_class=None,
        peft_config=configs[0],
        discriminator=str(tmp_path / "classifier"),
        discriminator_peft_config=configs[1],
    )
    trainer.train()
    trainer.discriminator.calibration = calibration(
        temperature=0.9,
        max_new_tokens=8,
        num_texts=500,
        auc=(0.7125, 0.65, 0.775),
        loss=0.61,
        uncalibrated_error=0.25,
        error=0.03,
        generation_kwargs={"top_p": 0.9},
    )
    trainer.save_model()
    trainer.create_model_card()
    section = (tmp_path / "out" / "README.md").read_text().split("### Sampling with both models")[1]
    section = section.split("## Samples")[0]
    assert 'at most 8 tokens, drawn at temperature 0.9 with `{"top_p": 0.9}`.' in section
    numbers = [line.split("|")[2].strip() for line in section.splitlines() if line.startswith("| ")]
    assert numbers[1:] == ["0.713 (0.650 to 0.775)", "0.610", "0.250, 0.030"]
    assert "on 500 held-out texts of each side" in section

    command = shlex.split(section.split("```bash")[1].split("```")[0])
    assert command[:2] == ["hf-mgan", "generate"]
    (script,) = HfArgumentParser(GenerateArguments).parse_args_into_dataclasses(command[2:])
    assert (script.model, script.temperature, script.max_new_tokens) == (str(tmp_path / "out"), 0.9, 8)
    assert script.generation_kwargs == {"top_p": 0.9}

    scope = {}
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The discriminator is calibrated")
        exec(python_of(section), scope)
    expected = guided_sample(trainer.model.eval(), tokenizer, trainer.discriminator, ["<s>"], scope["config"])
    assert capsys.readouterr().out.splitlines()[-1] == str(expected.texts)
    assert scope["discriminator"].calibration == trainer.discriminator.calibration

    trainer.hub_model_id = "someone/out"
    trainer.create_model_card()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "hf-mgan generate --model someone/out" in card
    assert 'folder = snapshot_download("someone/out")' in card
