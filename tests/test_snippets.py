"""The code that README and docs show, run as it is printed, on tiny models.

Nothing is put into it. Folders stand under the names of the Hub ids, where transformers and datasets find them as they
find any folder. `...` stands for what a page has shown before: the trainer's models and data, or the flags of
`hf-mgan train`. Trainings are cut short after two steps and two updates of the warm-up, but for the README's first
snippet (`test_readme.py`).
"""

import ast
import io
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import datasets
import pytest
import torch
from datasets import Dataset, load_dataset
from peft import LoraConfig
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.trainer_callback import DefaultFlowCallback

from hf_mgan import AdversarialConfig, AdversarialTrainer
from hf_mgan.cli.main import run
from hf_mgan.cli.run_settings import save_settings

from .conftest import VOCABULARY, bert_classifier, generators_tokenizer, texts, tokenizer_of_pairs
from .hub_server import connect, running_hub


ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
RECIPES = sorted((ROOT / "examples" / "recipes").glob("*.yaml"))
HOW_TO = sorted((ROOT / "docs" / "how_to").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *HOW_TO]
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
GENERATORS = ("Qwen/Qwen2.5-0.5B", "HuggingFaceTB/SmolLM2-135M-Instruct", "your/model", "your/sft-model")
CLASSIFIERS = (
    "distilbert/distilbert-base-uncased",
    "sentence-transformers/all-MiniLM-L6-v2",
    "sentence-transformers/all-mpnet-base-v2",
    "your/encoder",
)
GATE = "your/toxicity-classifier"
DATASETS = ("your/dataset", "your/texts", "roneneldan/TinyStories")
TRAIN = (
    "--model_name_or_path Qwen/Qwen2.5-0.5B --discriminator_name_or_path distilbert/distilbert-base-uncased "
    "--dataset_name your/dataset --output_dir out"
)
# Their commands are those of others, and belong to the environment or to several processes.
NOT_OURS = ("pip", "hf", "make", "accelerate", "torchrun", "trl", "git")


def blocks(page, language):
    return [code for kind, code in BLOCK.findall(page.read_text()) if kind == language]


def commands(page):
    """Return the commands of a page, each on one line and without a comment."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    shown = [re.sub(r"\s+#.*", "", line).strip() for line in lines]
    return [line for line in shown if line and line.split()[0] not in NOT_OURS]


def brief_generator():
    """A generator with room for 512 tokens that ends its texts after a few."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(VOCABULARY),
        n_embd=64,  # which 4 bits take
        n_layer=1,
        n_head=2,
        n_positions=1024,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.15,
    )
    model = GPT2LMHeadModel(config)
    model.transformer.ln_f.bias.data = 2.5 * model.transformer.wte.weight.data[2].clone()
    return model


def rows(count, seed):
    return [{"text": text} for text in texts(count, seed, length=20)]


def conversations(count, seed):
    pairs = zip(texts(count, seed, length=4), texts(count, seed + 1), strict=True)
    return [[{"role": "user", "content": one}, {"role": "assistant", "content": other}] for one, other in pairs]


def chat_tokenizer():
    tokenizer = generators_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}{% if add_generation_prompt %}this {% endif %}"
    )
    return tokenizer


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder to stand in, with a folder under each Hub id and a file under each name of one."""
    toxic = bert_classifier(num_labels=2, seed=2)  # which calls some texts toxic and others not
    toxic.config.id2label, toxic.config.label2id = {0: "fine", 1: "toxic"}, {"fine": 0, "toxic": 1}
    models = {name: (brief_generator(), generators_tokenizer()) for name in GENERATORS}
    models["Qwen/Qwen2.5-0.5B-Instruct"] = (brief_generator(), chat_tokenizer())
    models |= {name: (bert_classifier(), tokenizer_of_pairs()) for name in CLASSIFIERS}
    for name, parts in {**models, GATE: (toxic, tokenizer_of_pairs())}.items():
        for part in parts:
            part.save_pretrained(tmp_path / name)
    for name in DATASETS:
        write(tmp_path / name / "train.jsonl", rows(256, 1))
        write(tmp_path / name / "test.jsonl", rows(320, 2))
    for name, count in (("stories", 64), ("texts", 64), ("train", 64), ("held_out", 64)):
        write(tmp_path / f"{name}.jsonl", rows(count, 3))
    write(tmp_path / "conversations.jsonl", [{"messages": talk} for talk in conversations(256, 5)])
    verses = zip(texts(64, 6), texts(64, 7), strict=True)
    write(tmp_path / "verses.jsonl", [{"translation": {"archaic": one, "modern": other}} for one, other in verses])
    (tmp_path / "prompts.txt").write_text("the dog\na cat\n")
    write(tmp_path / "prompts.jsonl", [{"prompt": text} for text in texts(64, 4, length=3)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(sys, "path", list(sys.path))

    def two_steps(self, args, state, control, **_):
        control.should_training_stop |= state.global_step >= 2

    def two_updates(self, num_updates, **changes):
        return fit_discriminator(self, min(num_updates, 2), **changes)

    def brief_warmup(self):
        check(self)
        self.discriminator_warmup_steps = min(self.discriminator_warmup_steps, 2)

    fit_discriminator, check = AdversarialTrainer.fit_discriminator, AdversarialConfig.__post_init__
    monkeypatch.setattr(AdversarialConfig, "__post_init__", brief_warmup)
    monkeypatch.setattr(DefaultFlowCallback, "on_step_end", two_steps)
    monkeypatch.setattr(AdversarialTrainer, "fit_discriminator", two_updates)
    return tmp_path


@pytest.fixture
def of_hub(request, workplace, monkeypatch):
    """A Hub for the page that pushes to one."""
    if request.node.callspec.params["page"].name != "hub.md":
        yield
        return
    with running_hub() as hub:
        connect(monkeypatch, hub, workplace / "cache_of_hub")
        yield


@pytest.fixture
def trained(workplace):
    """A trainer whose models are in `out/`, as after the quickstart, and a checkpoint with them."""
    data = {
        "train_dataset": load_dataset("your/dataset", split="train"),
        "eval_dataset": Dataset.from_list(rows(64, 2)),
    }
    args = AdversarialConfig("out", max_completion_length=24, discriminator_final_steps=2)
    peft_config = LoraConfig(r=2, target_modules="all-linear")
    trainer = AdversarialTrainer(
        GENERATORS[0], args=args, discriminator=CLASSIFIERS[0], peft_config=peft_config, **data
    )
    trainer.train()
    trainer.save_model()
    trainer.model.save_pretrained("out/warm_start")
    save_settings("out", {"dataset_name": "your/dataset", "max_completion_length": 24})
    trainer._save_checkpoint(trainer.model, trial=None)
    for name in ("sft", "sft-longer"):  # what how-tos call adapters of supervised training
        shutil.copytree(workplace / "out", workplace / name, ignore=shutil.ignore_patterns("*.yaml"))
    return trainer


def in_full(code):
    """Return a block as a tree in which `...` among the arguments of a call is what the pages have shown before."""
    tree = ast.parse(code)
    for call in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
        if not any(isinstance(one, ast.Constant) and one.value is Ellipsis for one in call.args):
            continue
        shown = {one.arg for one in call.keywords}
        call.args = []
        call.keywords.append(
            ast.keyword(value=ast.parse(f"before({ast.unparse(call.func)!r}, {shown})").body[0].value)
        )
    return ast.fix_missing_locations(tree)


def before(name, shown):
    """Return the arguments of a call that a page leaves out."""
    if name == "AdversarialConfig":
        return {"output_dir": "out"}
    arguments = {"model": GENERATORS[0], "discriminator": CLASSIFIERS[0]}
    arguments["train_dataset"] = load_dataset("your/dataset", split="train")
    arguments["args"] = AdversarialConfig("out", logging_steps=1)
    return {key: value for key, value in arguments.items() if key not in shown}


def run_command(command, monkeypatch):
    source, _, command = command.rpartition(" | ")
    command = command.partition(" > ")[0]
    words = shlex.split(command.replace(" ... ", f" {TRAIN} "))
    assert words[0] == "hf-mgan", command
    if source:
        monkeypatch.setattr(sys, "stdin", io.StringIO(Path(source.removeprefix("cat ")).read_text()))
    run(words[1:])


def readers_own(trainer):
    """Return what a page speaks of and does not define."""
    held_out = Dataset.from_list(rows(300, 4))
    return {
        "before": before,
        "trainer": trainer,
        "generator": trainer.model,
        "tokenizer": trainer.processing_class,
        "discriminator": trainer.discriminator,
        "held_out": held_out,
        "train_dataset": load_dataset("your/dataset", split="train"),
        "generated": texts(len(held_out), 5),
        "prompts": ["the dog", "a cat"],
        "score": lambda model, processing_class: 0.5,
    }


@pytest.mark.snippets
def test_quickstart_trains_as_printed(workplace):
    exec(compile(in_full(blocks(ROOT / "docs" / "quickstart.md", "python")[0]), "quickstart.md", "exec"), {})
    assert (workplace / "out" / "adapter_model.safetensors").exists()
    assert (workplace / "out" / "discriminator" / "model.safetensors").exists()


@pytest.mark.snippets
def test_command_of_the_quickstart_trains_as_printed(workplace, monkeypatch):
    (command,) = (one for one in commands(ROOT / "docs" / "quickstart.md") if "warm_start_steps" in one)
    run_command(command, monkeypatch)
    for folder in ("out", "out/warm_start"):
        assert (workplace / folder / "adapter_model.safetensors").exists()


@pytest.mark.snippets
def test_trainer_without_args_trains(workplace):
    trainer = AdversarialTrainer(
        "Qwen/Qwen2.5-0.5B",
        discriminator="distilbert/distilbert-base-uncased",
        train_dataset=load_dataset("your/dataset", split="train"),
    )
    trainer.train()
    assert trainer.state.global_step == 2
    assert trainer.args.bf16 is torch.cuda.is_available()


@pytest.mark.snippets
@pytest.mark.parametrize("page", [page for page in HOW_TO if blocks(page, "python")], ids=lambda page: page.name)
def test_how_to_runs_as_printed_by_itself(page, workplace, of_hub):
    namespace = {"before": before}
    for number, code in enumerate(blocks(page, "python")):
        exec(compile(in_full(code), f"{page.name}, block {number}", "exec"), namespace)


@pytest.mark.snippets
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_recipe_runs_as_its_header_says(recipe, workplace, monkeypatch):
    shutil.copytree(RECIPES[0].parent, workplace / "examples" / "recipes")
    if recipe.name == "chat.yaml":
        for name, seed in (("train", 3), ("held_out", 5)):
            write(workplace / f"{name}.jsonl", [{"messages": talk} for talk in conversations(64, seed)])
        write(workplace / "questions.jsonl", [{"prompt": talk[:1]} for talk in conversations(2, 7)])
    if recipe.name == "qlora.yaml":  # layers in 4 bits are multiples of 64 wide on a CPU
        bert_classifier(hidden_size=64).save_pretrained(workplace / CLASSIFIERS[1])
    if recipe.name == "verifiable_reward.yaml":
        (workplace / "rewards.py").write_text(
            "def has_a_dog(completions, **kwargs):\n    return [float('dog' in text) for text in completions]\n\n\n"
            "def is_kept(prompts, completions):\n    return ['dog' in text for text in completions]\n"
        )
        shutil.copy(workplace / "train.jsonl", workplace / "liked.jsonl")
    header = "".join(line[1:] for line in recipe.read_text().splitlines(keepends=True) if line.startswith("#   "))
    shown = [line.strip() for line in header.replace("\\\n", " ").splitlines()]
    assert [command.split()[1] for command in shown] == ["train", "generate"]
    for command in shown:
        run_command(command, monkeypatch)
    assert (workplace / "out" / "adapter_model.safetensors").exists()
    discriminator = "adapter_model" if recipe.name == "qlora.yaml" else "model"
    assert (workplace / "out" / "discriminator" / f"{discriminator}.safetensors").exists()
    assert (workplace / "out" / "quantization_config.json").exists() is (recipe.name == "qlora.yaml")


@pytest.mark.snippets
def test_notebook_runs_from_top_to_bottom(workplace, monkeypatch, capsys):
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="the extra `evaluation` is not installed")
    monkeypatch.setattr(pyplot, "show", lambda: None)  # without a screen
    pyplot.switch_backend("agg")
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    namespace = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, cell {number}", "exec"), namespace)
    printed = capsys.readouterr().out
    assert "AUC on held-out texts" in printed
    assert "draws per text" in printed
    assert (workplace / "out" / "discriminator" / "model.safetensors").exists()


def test_notebook_holds_no_outputs():
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


@pytest.mark.slow
@pytest.mark.snippets
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in HOW_TO and blocks(page, "python")], ids=lambda page: page.name
)
def test_python_of_a_page_runs_as_printed(page, trained):
    namespace = readers_own(trained)
    for number, code in enumerate(blocks(page, "python")):
        exec(compile(in_full(code), f"{page.name}, block {number}", "exec"), namespace)


class ReadTo(BaseException):
    """Raised in place of what a command does, once its words are read."""


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_commands_of_a_page_have_flags_that_there_are(page, tmp_path, monkeypatch):
    def stop(*_):
        raise ReadTo

    for name in ("train", "generate", "evaluate", "run_demo"):
        monkeypatch.setattr(f"hf_mgan.cli.main.{name}", stop)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("a prompt\n")
    for command in commands(page):
        with pytest.raises(ReadTo):
            run_command(command, monkeypatch)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_quickstart_trains_as_printed_on_a_gpu(workplace):
    namespace = {}
    exec(compile(in_full(blocks(ROOT / "docs" / "quickstart.md", "python")[0]), "quickstart.md", "exec"), namespace)
    assert namespace["trainer"].model.device.type == "cuda"
    assert namespace["trainer"].args.bf16


@pytest.mark.slow
@pytest.mark.snippets
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_commands_of_a_page_run_as_printed(page, trained, of_hub, monkeypatch):
    for command in commands(page):
        run_command(command, monkeypatch)
