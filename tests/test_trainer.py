import copy
import inspect
import json
import math
from collections import Counter

import pytest
import torch
from datasets import Dataset
from peft import AutoPeftModelForCausalLM, LoraConfig
from torch.testing import assert_close
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from trl import GRPOTrainer

from hf_mgan import AdversarialConfig, AdversarialTrainer
from hf_mgan.evaluation.evaluator import GeneratorEvaluator
from hf_mgan.safety import SafetyGate
from hf_mgan.training.pushing import PushingTrainer
from hf_mgan.training.resumable import ResumableTrainer
from hf_mgan.training.reward import REFERENCE, DiscriminatorReward

from .conftest import bert_classifier, texts


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def moved(before, model):
    return {name for name, parameter in model.named_parameters() if not torch.equal(before[name], parameter)}


def test_trainer_moves_both_models_and_no_frozen_base(make_trainer):
    trainer = make_trainer(peft_config=LoraConfig(r=2, target_modules=["c_attn"]))
    generator, discriminator = weights(trainer.model), weights(trainer.discriminator.model)
    trainer.train()
    assert moved(generator, trainer.model) == {name for name in generator if "lora_" in name}
    # An embedding of a position or word that occurs moves too; only the pooler's unused parts could stay behind.
    assert len(moved(discriminator, trainer.discriminator.model)) == len(discriminator)


def test_optimizers_share_no_parameters(make_trainer):
    trainer = make_trainer()
    trainer.train()
    theirs = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert theirs.isdisjoint(id(p) for p in trainer.discriminator.model.parameters())
    assert not any("discriminator" in name for name, _ in trainer.model.named_modules())


@pytest.mark.parametrize("discriminator_steps", [1, 3])
def test_discriminator_updates_per_generation_batch(make_trainer, make_config, dataset, discriminator_steps):
    """accumulation 2, steps_per_generation 4, iterations 2: a generation batch serves 8 micro-steps = 4 optimizer
    steps.

    12 optimizer steps are 24 micro-steps are 3 generation batches are 3 * discriminator_steps updates.
    """
    config = make_config(
        gradient_accumulation_steps=2,
        steps_per_generation=4,
        num_iterations=2,
        max_steps=12,
        discriminator_steps=discriminator_steps,
        eval_strategy="steps",
        eval_steps=3,
        per_device_eval_batch_size=4,
    )
    trainer = make_trainer(config, eval_dataset=dataset.select(range(4)))
    discriminator = trainer.discriminator
    events, evaluations = [], []
    update, evaluate = discriminator.update, trainer.evaluate

    def counted_update(*args, **kwargs):
        events.append((trainer._step, trainer.model.training))
        before = weights(discriminator.model)
        output = update(*args, **kwargs)
        assert moved(before, discriminator.model)
        return output

    def compared_evaluate(*args, **kwargs):
        before = weights(discriminator.model)
        metrics = evaluate(*args, **kwargs)
        assert not moved(before, discriminator.model)
        evaluations.append(metrics)
        return metrics

    discriminator.update, trainer.evaluate = counted_update, compared_evaluate
    trainer.train()
    assert Counter(events) == {(step, True): discriminator_steps for step in (0, 8, 16)}
    assert discriminator.num_updates == 3 * discriminator_steps
    assert len(evaluations) == 4


def test_metrics_keep_their_names(make_trainer, make_config, dataset):
    trainer = make_trainer(make_config(eval_strategy="steps", eval_steps=4), eval_dataset=dataset.select(range(8)))
    trainer.train()
    names = {"loss", "real_prob", "fake_prob", "accuracy", "value", "real_length", "fake_length"}
    train = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert {f"discriminator/{name}" for name in names | {"grad_norm", "learning_rate"}} <= set(train)
    assert "rewards/discriminator/mean" in train
    evaluation = next(entry for entry in trainer.state.log_history if "eval_loss" in entry)
    assert {f"eval_discriminator/{name}" for name in names} <= set(evaluation)
    # Before its first step the value is bce's negative and the reward is minimax of the same logits.
    assert train["discriminator/value"] == pytest.approx(-train["discriminator/loss"], abs=1e-5)
    assert train["discriminator/learning_rate"] == pytest.approx(1e-2)


def test_reward_is_made_of_logits_before_the_update(make_trainer, make_config):
    trainer = make_trainer(make_config(discriminator_reward="probability", max_steps=1))
    before = copy.deepcopy(trainer.discriminator)
    seen = {}
    update = trainer.discriminator.update

    def watched(prompts, completions, *rest, **kwargs):
        seen["expected"] = before.score(prompts, completions).sigmoid().mean().item()
        return update(prompts, completions, *rest, **kwargs)

    trainer.discriminator.update = watched
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["rewards/discriminator/mean"] == pytest.approx(seen["expected"], abs=1e-5)
    assert log["discriminator/fake_prob"] == pytest.approx(seen["expected"], abs=1e-5)


def test_generator_learns_what_the_discriminator_rewards(make_trainer, make_config, classifier):
    """Real texts hold only the word "dog"; training must raise its share among the generated words."""
    dogs = Dataset.from_dict({"text": ["dog dog dog dog dog dog"] * 32})
    config = make_config(
        max_steps=60,
        per_device_train_batch_size=32,
        num_generations=32,
        max_completion_length=6,
        learning_rate=2e-2,
        lr_scheduler_type="constant",
        scale_rewards="none",
        seed=1,
    )
    trainer = make_trainer(config, train_dataset=dogs)

    def share():
        torch.manual_seed(0)
        start = trainer.processing_class(["<s>"] * 64, return_tensors="pt")
        trainer.model.eval()
        ids = trainer.model.generate(**start, do_sample=True, max_new_tokens=6, top_k=0)
        words = " ".join(trainer.processing_class.batch_decode(ids, skip_special_tokens=True)).split()
        return words.count("dog") / len(words)

    before = share()
    trainer.train()
    assert before < 0.2
    assert share() > 0.5


def test_trl_calls_the_discriminator_as_a_reward(make_trainer, make_config, monkeypatch):
    """Of each row TRL hands over every column but `completion`, which comes under a name of its own."""
    calls = []
    call = DiscriminatorReward.__call__

    def watched(self, prompts, completions, completion_ids, log_metric, log_extra, **columns):
        rewards = call(self, prompts, completions, completion_ids, log_metric, log_extra, **columns)
        calls.append((prompts, completions, columns, rewards, self.round))
        return rewards

    monkeypatch.setattr(DiscriminatorReward, "__call__", watched)
    data = Dataset.from_dict({"prompt": ["the dog", "a cat"] * 8, "completion": ["sees a king", "runs ."] * 8})
    trainer = make_trainer(make_config(max_steps=1, discriminator_loss="bradley_terry"), train_dataset=data)
    assert trainer.reward_func_names == ["discriminator"]
    assert trainer.reward_funcs == [trainer._reward]
    trainer.train()
    ((prompts, completions, columns, rewards, its_round),) = calls
    answers = {"the dog": "sees a king", "a cat": "runs ."}
    assert columns[REFERENCE] == its_round.real.texts == [answers[prompt] for prompt in prompts]
    assert "completion" not in columns
    assert its_round is trainer._reward.round
    assert its_round.real.prompts == prompts
    assert rewards == pytest.approx(torch.nn.functional.softplus(its_round.output.fake_logits).tolist())
    assert trainer.state.log_history[0]["rewards/discriminator/mean"] == pytest.approx(sum(rewards) / 4, abs=1e-5)
    assert len(completions) == len(its_round.completion_ids) == 4


def test_reward_in_evaluation_reads_held_out_references(make_trainer, make_config):
    data = Dataset.from_dict({"prompt": ["the dog", "a cat"] * 8, "completion": ["sees a king", "runs ."] * 8})
    held_out = Dataset.from_dict({"prompt": ["the bird"], "completion": ["eats"]})
    trainer = make_trainer(make_config(per_device_eval_batch_size=4), train_dataset=data, eval_dataset=held_out)
    drawn = trainer._reward.real_texts.drawn
    trainer.evaluate()
    assert trainer._reward.round.real.texts == ["eats"] * 4
    assert trainer._reward.round.accuracy is None  # that of the last training batch, of which there was none
    assert trainer._reward.real_texts.drawn == drawn


def length_reward(completions, **kwargs):
    return [float(len(completion)) for completion in completions]


def test_reward_weights_beside_the_discriminators(make_trainer, make_config):
    config = make_config(reward_weights=[0.5], discriminator_weight=2.0, max_steps=1)
    trainer = make_trainer(config, reward_funcs=length_reward)
    assert trainer.reward_func_names == ["length_reward", "discriminator"]
    assert trainer.reward_weights.tolist() == [0.5, 2.0]
    assert config.reward_weights == [0.5]
    assert trainer.args.reward_weights == [0.5]
    trainer.train()
    log = trainer.state.log_history[0]
    expected = 0.5 * log["rewards/length_reward/mean"] + 2 * log["rewards/discriminator/mean"]
    assert log["reward"] == pytest.approx(expected, abs=1e-4)


def test_lists_given_are_not_changed(make_trainer):
    rewards = [length_reward]
    make_trainer(reward_funcs=rewards)
    assert rewards == [length_reward]


def test_warm_up_moves_the_discriminator_alone(make_trainer, make_config):
    asked = []

    def costly_reward(completions, **kwargs):
        asked.append(len(completions))
        return [0.0] * len(completions)

    trainer = make_trainer(make_config(discriminator_warmup_steps=5, max_steps=2), reward_funcs=costly_reward)
    generator = weights(trainer.model)
    seen = []
    update = trainer.discriminator.update

    def watched(*args, **kwargs):
        seen.append(bool(moved(generator, trainer.model)))
        return update(*args, **kwargs)

    trainer.discriminator.update = watched
    trainer.train()
    assert seen == [False] * 6 + [True]  # five of the warm-up, and one for each step
    assert trainer.state.global_step == 2
    assert asked == [4, 4]
    steps = [
        entry.get("discriminator/warmup_step") for entry in trainer.state.log_history if "discriminator/value" in entry
    ]
    assert steps == [1, 2, 3, 4, 5, None, None]


def test_warm_up_batches_give_discriminator_steps_updates(make_trainer, make_config):
    """7 updates, 3 a batch: batches of 3, 3 and 1, then 2 steps of 3. Of 3, 6 and 7 the first two pass a multiple of
    2.
    """
    config = make_config(discriminator_warmup_steps=7, discriminator_steps=3, max_steps=2, logging_steps=2)
    trainer = make_trainer(config)
    generator = weights(trainer.model)
    events = []
    generate, update = trainer._generate_and_score_completions, trainer.discriminator.update

    def watched_generate(inputs):
        events.append("batch")
        return generate(inputs)

    def watched_update(*args, **kwargs):
        events.append("update after a step" if moved(generator, trainer.model) else "update")
        return update(*args, **kwargs)

    trainer._generate_and_score_completions, trainer.discriminator.update = watched_generate, watched_update
    trainer.train()
    whole_batch = ["batch", *["update"] * 3]
    warm_up = [*whole_batch, *whole_batch, "batch", "update"]
    assert events == [*warm_up, *whole_batch, "batch", *["update after a step"] * 3]
    assert trainer.discriminator.num_updates == 7 + 2 * 3
    logged = [entry for entry in trainer.state.log_history if "discriminator/warmup_step" in entry]
    assert [entry["discriminator/warmup_step"] for entry in logged] == [3, 6, 7]
    assert all("discriminator/value" in entry for entry in logged)


def test_default_trainer_warms_up(make_trainer, tmp_path):
    """Nothing is said of the warm-up: the generator's first step comes after `discriminator_warmup_steps` updates."""
    settings = {
        "per_device_train_batch_size": 2, "num_generations": 2, "max_completion_length": 2, "max_steps": 1,
        "report_to": "none", "use_cpu": True, "bf16": False, "save_strategy": "no", "disable_tqdm": True,
    }  # fmt: skip
    config = AdversarialConfig(str(tmp_path), **settings)
    assert config.discriminator_warmup_steps > 0
    trainer = make_trainer(config)
    generator = weights(trainer.model)
    seen = []
    update = trainer.discriminator.update

    def watched(*args, **kwargs):
        seen.append(bool(moved(generator, trainer.model)))
        return update(*args, **kwargs)

    trainer.discriminator.update = watched
    trainer.train()
    assert seen == [False] * (config.discriminator_warmup_steps + 1)  # the last is that of the first step
    assert moved(generator, trainer.model)


@pytest.mark.parametrize(("warmup_steps", "updates"), [(2, 2 + 4), (3, 2 + 4), (9, 9 + 2)])
def test_resumed_run_finishes_its_warm_up(make_trainer, make_config, tmp_path, warmup_steps, updates):
    """The checkpoint after two steps holds 2 + 2 updates. More than that are made up for before the third step."""
    saving = {"save_strategy": "steps", "save_steps": 2}
    make_trainer(make_config(discriminator_warmup_steps=2, max_steps=2, **saving)).train()
    trainer = make_trainer(make_config(discriminator_warmup_steps=warmup_steps, max_steps=4, **saving))
    steps = []
    update = trainer.discriminator.update

    def watched(*args, **kwargs):
        steps.append(trainer.state.global_step)
        return update(*args, **kwargs)

    trainer.discriminator.update = watched
    trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert trainer.discriminator.num_updates == updates
    assert steps == [2] * (updates - 4 - 1) + [3]


@pytest.mark.parametrize("loss", ["bradley_terry", "relativistic_average"])
def test_relative_losses_with_prompts(make_trainer, make_config, loss):
    data = Dataset.from_dict({"prompt": ["the dog", "a cat"] * 8, "completion": ["sees a king", "runs ."] * 8})
    trainer = make_trainer(make_config(discriminator_loss=loss), train_dataset=data, eval_dataset=data.select([0, 1]))
    assert trainer.train_dataset is data  # the shape TRL knows is left as it is
    seen = []
    update = trainer.discriminator.update

    def watched(prompts, completions, references, real_prompts, **kwargs):
        seen.append((prompts, references, real_prompts))
        return update(prompts, completions, references, real_prompts, **kwargs)

    trainer.discriminator.update = watched
    trainer.train()
    answers = {"the dog": "sees a king", "a cat": "runs ."}
    for prompts, references, real_prompts in seen:
        assert references == [answers[prompt] for prompt in real_prompts]
        if loss == "bradley_terry":
            assert real_prompts == prompts
    assert math.isfinite(trainer.evaluate()["eval_discriminator/loss"])


def test_conversations_with_log_completions(make_trainer, make_config, tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}{% if add_generation_prompt %}this {% endif %}"
    )
    talk = [[{"role": "user", "content": "the dog"}, {"role": "assistant", "content": "runs ."}]] * 8
    config = make_config(log_completions=True, max_steps=2)
    trainer = make_trainer(config, train_dataset=Dataset.from_dict({"messages": talk}), processing_class=tokenizer)
    seen = []
    update = trainer.discriminator.update

    def watched(*args, **kwargs):
        seen.append(args)
        return update(*args, **kwargs)

    trainer.discriminator.update = watched
    trainer.train()
    prompts, completions, references, _ = seen[0]
    assert set(prompts) == {"the dog"}
    assert set(references) == {"runs ."}
    assert all(isinstance(completion, str) for completion in completions)


def test_table_of_completions_has_real_text_and_d(make_trainer, make_config):
    texts = [f"the dog sees a {name} ." for name in ("king", "cat", "dog", "king")]
    still = {"discriminator_learning_rate": 1e-12}  # so that it can be asked again
    config = make_config(log_completions=True, max_steps=1, discriminator_warmup_steps=1, **still)
    trainer = make_trainer(config, train_dataset=Dataset.from_dict({"text": texts}))
    trainer.train()
    table = {name: list(values) for name, values in trainer._logs["extra"].items()}
    completions = trainer._logs["completion"]
    assert set(table) == {"D(completion)", "real text", "D(real text)"}
    assert {len(values) for values in table.values()} == {len(completions)}
    for name, shown in (("D(completion)", completions), ("D(real text)", table["real text"])):
        expected = trainer.discriminator.score([""] * len(shown), list(shown)).sigmoid()
        assert table[name] == pytest.approx(expected.tolist(), abs=1e-4)
    assert all(any(text.endswith(real.strip()) for text in texts) for real in table["real text"])


def test_warmup_shows_its_progress(make_trainer, make_config, capsys):
    make_trainer(make_config(discriminator_warmup_steps=3, max_steps=1, disable_tqdm=False)).train()
    shown = capsys.readouterr().err
    assert "discriminator warm-up: 100%" in shown
    assert "3/3" in shown


def test_remove_unused_columns_keeps_references(make_trainer, make_config):
    data = Dataset.from_dict({"prompt": ["a"] * 8, "completion": ["cat"] * 8, "extra": [1] * 8})
    make_trainer(
        make_config(remove_unused_columns=True, discriminator_loss="bradley_terry"), train_dataset=data
    ).train()


def test_discriminator_batch_size_gives_the_same_run(make_trainer, make_config, classifier, generator):
    histories = []
    for batch_size in (None, 3):
        config = make_config(
            discriminator_batch_size=batch_size, discriminator_optim_kwargs={"optim": "sgd"}, max_steps=3
        )
        trainer = make_trainer(config, model=copy.deepcopy(generator), discriminator=copy.deepcopy(classifier))
        trainer.train()
        histories.append([entry["discriminator/value"] for entry in trainer.state.log_history if "loss" in entry])
    assert histories[0] == pytest.approx(histories[1], abs=1e-4)
    assert len(histories[0]) == 3


def test_save_model_writes_adapter_and_discriminator(make_trainer, generator, tokenizer, tmp_path):
    generator.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    trainer = make_trainer(
        model=str(tmp_path / "base"),
        processing_class=None,
        peft_config=LoraConfig(r=2, target_modules=["c_attn"], task_type="CAUSAL_LM"),
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "saved")
    ids = torch.tensor([[1, 7, 8]])
    with torch.no_grad():
        assert_close(loaded(ids).logits, trainer.model.eval()(ids).logits)
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved" / "discriminator")
    trained = trainer.discriminator.model
    assert all(torch.equal(a, b) for a, b in zip(classifier.parameters(), trained.parameters(), strict=True))


def test_model_card_names_the_discriminator(make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.train()
    trainer.create_model_card()
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.count("## The discriminator") == 1
    assert "AutoModelForSequenceClassification.from_pretrained(folder" in card
    assert "| the generator's reward | `minimax` |" in card
    assert "V(D, G)" in card
    assert "hf-mgan" in card.split("---")[1]


@pytest.mark.parametrize("adapters", [False, True])
def test_model_card_lines_load_the_discriminator(make_trainer, tmp_path, adapters):
    bert_classifier().save_pretrained(tmp_path / "base")
    lora = LoraConfig(r=2, target_modules=["query"]) if adapters else None
    trainer = make_trainer(discriminator=str(tmp_path / "base"), discriminator_peft_config=lora)
    trainer.train()
    trainer.save_model()
    trainer.create_model_card()
    card = (tmp_path / "out" / "README.md").read_text()
    scope = {}
    exec(card.split("## The discriminator")[1].split("```python")[1].split("```")[0], scope)
    encoded = trainer.discriminator.encode([""], ["the dog"])
    with torch.no_grad():
        expected = trainer.discriminator.model(**encoded).logits
        assert_close(scope["discriminator"].eval()(**encoded).logits, expected)

    trainer.hub_model_id = "someone/out"
    trainer.create_model_card()
    assert 'snapshot_download("someone/out"' in (tmp_path / "out" / "README.md").read_text()


def assert_overrides(trainer, signatures):
    """Check that a class overrides these members of TRL's trainer, whose signatures begin so, and no others."""
    inherited = set(dir(GRPOTrainer))
    overridden = {name for name, member in vars(trainer).items() if name in inherited and inspect.isfunction(member)}
    assert overridden == set(signatures) | {"__init__"}
    for name, signature in signatures.items():
        assert str(inspect.signature(getattr(GRPOTrainer, name))).startswith(signature), name


def test_members_overridden_to_resume_keep_signatures():
    expected = {
        "train": "(self, resume_from_checkpoint: str | bool | None = None, trial",
        "_load_from_checkpoint": "(self, resume_from_checkpoint: str, model",
        "_load_optimizer_and_scheduler": "(self, checkpoint)",
        "_load_rng_state": "(self, checkpoint: str | None)",
        "_run_epoch": "(self, model, epoch",
        "_generate_and_score_completions": "(self, inputs: list",
        "_get_grad_norm": "(self, model, grad_norm=None)",
        "_maybe_log_save_evaluate": "(self, tr_loss: torch.Tensor, grad_norm: torch.Tensor | float | None, model: "
        "torch.nn.modules.module.Module, trial",
        "_finalize_training": "(self, trial",
        "_save_checkpoint": "(self, model, trial)",
        "_get_output_dir": "(self, trial",
        "_push_from_checkpoint": "(self, checkpoint_folder: str)",
        "_save_optimizer_and_scheduler": "(self, output_dir: str)",
    }
    assert_overrides(ResumableTrainer, expected)


def test_members_overridden_to_push_keep_signatures():
    expected = {
        "_push_from_checkpoint": "(self, checkpoint_folder: str)",
        "_save": "(self, output_dir: str | None = None, state_dict: dict | None = None)",
        "init_hf_repo": "(self, token: str | None = None, private: bool | None = None)",
        "push_to_hub": "(self, commit_message: str | None = 'End of training', blocking: bool = True, token: str | "
        "None = None, revision: str | None = None, private: bool | None = None, **kwargs)",
    }
    assert_overrides(PushingTrainer, expected)


def test_overridden_members_keep_their_signatures():
    expected = {
        "_calculate_rewards": "(self, inputs, prompts, completions, completion_ids_list)",
        "_generate_and_score_completions": "(self, inputs: list",
        "_compute_loss": "(self, model, inputs)",
        "log": "(self, logs: dict[str, float], start_time: float | None = None)",
        "_prepare_inputs": "(self, generation_batch",
        "_tokenize_prompts": "(self, prompts: list)",
        "evaluation_loop": "(self, dataloader",
        "_set_signature_columns_if_needed": "(self)",
        "_get_train_sampler": "(self, dataset",
        "_load_optimizer_and_scheduler": "(self, checkpoint)",
        "_load_best_model": "(self)",
        "_save_optimizer_and_scheduler": "(self, output_dir: str)",
        "create_scheduler": "(self, num_training_steps: int, optimizer",
        "save_model": "(self, output_dir: str | None = None, _internal_call: bool = False)",
        "create_model_card": "(self, model_name: str | None = None, dataset_name: str | None = None, tags",
    }
    assert_overrides(AdversarialTrainer, expected)
    ours = list(inspect.signature(AdversarialTrainer.__init__).parameters)
    theirs = list(inspect.signature(GRPOTrainer.__init__).parameters)
    assert ours[: len(theirs)] == theirs


def states(trainer):
    return {**weights(trainer.model), **{f"D.{k}": v for k, v in weights(trainer.discriminator.model).items()}}


@pytest.mark.parametrize("adapters", [False, True], ids=["whole", "lora"])
def test_resumed_run_is_bitwise_identical(make_trainer, make_config, generator, classifier, tmp_path, adapters):
    """12 texts, 4 a generation batch of 2 prompts... 12 steps cross an epoch before and after the checkpoint at step
    8."""
    data = Dataset.from_dict({"text": texts(6)})
    settings = {
        "max_steps": 12,
        "save_strategy": "steps",
        "save_steps": 4,
        "num_generations": 2,
        "steps_per_generation": 2,
        "gradient_accumulation_steps": 2,
        "num_iterations": 2,
        "discriminator_warmup_steps": 2,
        "discriminator_optim_kwargs": {"lr_scheduler_type": "linear"},
    }
    peft = {"peft_config": LoraConfig(r=2, target_modules=["c_attn"])} if adapters else {}

    def fresh():
        return make_trainer(
            make_config(**settings),
            model=copy.deepcopy(generator),
            discriminator=copy.deepcopy(classifier),
            train_dataset=data,
            **peft,
        )

    whole = fresh()
    whole.train()
    resumed = fresh()
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-8"))
    assert resumed.discriminator.num_updates == whole.discriminator.num_updates
    for name, value in states(whole).items():
        assert torch.equal(value, states(resumed)[name]), name
    state = json.loads((tmp_path / "out" / "checkpoint-8" / "discriminator" / "adversarial_state.json").read_text())
    assert state["epoch"] > 1


def test_resume_refuses_a_checkpoint_of_another_trainer(make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.save_model(str(tmp_path / "checkpoint-1"))
    trainer.state.save_to_json(str(tmp_path / "checkpoint-1" / "trainer_state.json"))
    with pytest.raises(FileNotFoundError, match=r"no state of a discriminator.*save_only_model"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


class FakeEvaluator(GeneratorEvaluator):
    """Stands for [`GeneratorEvaluator`]: remembers how it is called, and returns a metric."""

    primary_metric = "samples/c2st_auc"
    greater_is_better = False

    def __init__(self):
        self.checked, self.prepared, self.models = [], [], []

    def check(self, args, **given):
        self.checked.append((args, given))

    def prepare(self, processing_class, args, safety_gate=None):
        self.prepared.append((processing_class, args, safety_gate))

    def __call__(self, model):
        self.models.append((model, model.training))
        return {"samples/c2st_auc": 0.5 + len(self.models) / 10}


def test_evaluator_is_prepared_with_the_trainer(make_trainer, make_config, tokenizer):
    evaluator = FakeEvaluator()
    args = make_config()
    trainer = make_trainer(args, evaluator=evaluator)
    writers = {"tools": None, "rollout_func": None, "environment_factory": None}
    assert evaluator.checked == [(args, writers)]
    assert evaluator.prepared == [(tokenizer, args, None)]
    assert trainer.evaluator is evaluator
    assert evaluator.models == []
    gated = FakeEvaluator()
    make_trainer(args, evaluator=gated, safety_gate=lambda completions: [False] * len(completions))
    assert isinstance(gated.prepared[0][2], SafetyGate)


def test_evaluator_refuses_before_anything_loads(make_trainer, monkeypatch):
    class Refusing(FakeEvaluator):
        def prepare(self, processing_class, args, safety_gate=None):
            raise ValueError("num_samples")

    def load(*_, **__):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", load)
    with pytest.raises(ValueError, match="num_samples"):
        make_trainer(discriminator="someone/discriminator", evaluator=Refusing())


def test_evaluator_metrics_stand_among_the_evaluations(make_trainer, make_config, dataset):
    evaluator = FakeEvaluator()
    args = make_config(eval_strategy="steps", eval_steps=2, max_steps=4, per_device_eval_batch_size=4)
    trainer = make_trainer(args, evaluator=evaluator, eval_dataset=dataset.select([0]))
    trainer.train()
    logged = [entry["eval_samples/c2st_auc"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert logged == pytest.approx([0.6, 0.7])
    assert all(model is trainer.model for model, _ in evaluator.models)
    assert trainer.evaluate(metric_key_prefix="test")["test_samples/c2st_auc"] == pytest.approx(0.8)


def test_evaluator_runs_for_the_first_of_several_sets(make_trainer, make_config, dataset):
    evaluator = FakeEvaluator()
    args = make_config(
        eval_strategy="steps", eval_steps=2, max_steps=4, per_device_eval_batch_size=4, save_strategy="steps",
        save_steps=2, load_best_model_at_end=True, metric_for_best_model="samples/c2st_auc", greater_is_better=False,
    )  # fmt: skip
    sets = {"first": dataset.select([0]), "second": dataset.select([1])}
    trainer = make_trainer(args, evaluator=evaluator, eval_dataset=sets)
    trainer.train()
    assert len(evaluator.models) == 2  # once per evaluation
    entries = [entry for entry in trainer.state.log_history if any(name.startswith("eval_") for name in entry)]
    with_samples = [entry for entry in entries if "eval_samples/c2st_auc" in entry]
    assert ["eval_first_loss" in entry for entry in with_samples] == [True, True]
    assert len(entries) == 4
    assert trainer.state.best_global_step == 2  # 0.6 at step 2, 0.7 at step 4
