"""Names and texts in Markdown, parsed again: they come out as they were written, and nothing else with them."""

import json
import shlex

import pytest
import yaml
from huggingface_hub import ModelCard

from hf_mgan.evaluation.plots import draw
from hf_mgan.evaluation.report import markdown, write_report
from hf_mgan.markdown import code, escaped, fenced

from .conftest import bert_classifier
from .decoding.conftest import calibration
from .evaluation.test_report import is_png, part, report


markdown_it = pytest.importorskip("markdown_it", reason="the extra `docs` is not installed")

NASTY = [
    "a|b",
    "a\\|b\\",
    "one\ntwo\r\nthree",
    "`code` and ``more```",
    "<script>alert('x')</script>",
    "---",
    "- - -",
    "===",
    "# heading #",
    "> quote",
    "+ plus",
    "1. first",
    "12) twelfth",
    "[x](y) ![x](y) [x]: y",
    "{{ config.secret }} {% raw %}",
    "*bold* __bold__ _it_ my_model _",
    "~~gone~~ $x_1$ &amp; &#65;",
    "    indented",
    " spaces \t ",
    "|---|---|",
    "```\n## Training procedure\n---",
    "\u2028line\u2029paragraph",
    "中文 | émoji 🙂 <br>",
]


def parse(text):
    parser = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"])
    return parser.parse(text)


def text_of(inline):
    """What an inline token shows; markup other than plain text is named, so that it cannot pass for text."""
    kinds = {"text", "text_special", "softbreak"}
    return "".join(one.content if one.type in kinds else f"<<{one.type}>>" for one in inline.children)


def inlines(tokens, kind):
    """The inline tokens directly within tokens of a kind."""
    return [text_of(tokens[place + 1]) for place, token in enumerate(tokens) if token.type == kind]


@pytest.mark.parametrize("text", NASTY)
def test_escaped_text_comes_out_as_written(text):
    shown = escaped(text)
    assert len(shown.splitlines()) == 1
    assert inlines(parse(shown), "paragraph_open") == [text]
    assert inlines(parse(f"- {shown}\n- next"), "paragraph_open") == [text, "next"]
    assert inlines(parse(f"# A {shown}"), "heading_open") == [f"A {text}"]
    tokens = parse(f"| a | b |\n|---|---|\n| {shown} | 1 |\n| 2 | {shown} |")
    assert inlines(tokens, "td_open") == [text, "1", "2", text]


@pytest.mark.parametrize("text", NASTY)
def test_code_comes_out_as_written(text):
    (block,) = parse(fenced(text, "bash"))
    assert (block.type, block.info, block.content.removesuffix("\n")) == ("fence", "bash", text.replace("\r\n", "\n"))
    first = parse(code(text))[0]
    if first.type == "fence":
        assert first.content.removesuffix("\n") == text.replace("\r\n", "\n")
    else:
        (span,) = parse(code(text))[1].children
        assert (span.type, span.content) == ("code_inline", text)


def test_plain_names_stay_readable():
    assert escaped("org/my_model-1.5 (T = 0.8): fine!") == "org/my_model-1.5 (T = 0.8): fine!"


def renamed(name):
    made = report()
    parts = {key.replace("gan", name): one for key, one in made.parts.items()}
    parts["real"] = part(tuple(NASTY[:5]), **made.parts["real"]["metrics"])
    parts[f"{name}_T1"] = part(tuple(NASTY[5:10]), **made.parts["gan_T1"]["metrics"])
    return report(parts=parts, models=["start", name], command=shlex.join(["hf-mgan", "evaluate", name]))


@pytest.mark.parametrize("name", NASTY)
def test_report_shows_names_and_samples(name):
    made = renamed(name)
    tokens = parse(markdown(made))
    cells = inlines(tokens, "td_open")
    assert cells.count(name) == 3  # two temperatures, and a comparison
    assert f"By C2ST AUC: {name} against start" in inlines(tokens, "paragraph_open")[0]
    samples = inlines(tokens, "paragraph_open")
    assert set(NASTY[:10]) <= set(samples)
    bold = [
        text_of(token)
        for token in tokens
        if token.type == "inline" and "strong_open" in {one.type for one in token.children}
    ]
    assert f"<<strong_open>>{name}<<strong_close>>" in bold
    back = parse(markdown(report(parts=made.parts, models=made.models, baseline=name)))
    assert f"At matched self-BLEU, against {name}" in inlines(back, "heading_open")
    headings = [
        "Evaluation",
        "At matched self-BLEU, against start",
        "What the columns are",
        "Samples",
        "How it was made",
    ]
    assert inlines(tokens, "heading_open") == headings
    assert not any(token.type in ("hr", "html_block", "blockquote_open", "code_block") for token in tokens)
    (settings,) = (token for token in tokens if token.type == "fence" and token.info == "json")
    assert json.loads(settings.content) == made.settings


def test_plots_show_names_that_look_like_mathematics(tmp_path):
    draw(renamed(r"$\wrong$"), tmp_path)
    assert is_png(tmp_path / "frontier.png")


def test_written_report_is_the_one_shown(tmp_path):
    made = renamed("a`b#c")
    write_report(made, tmp_path)
    assert (tmp_path / "report.md").read_text() == markdown(made) + "\n"
    assert "a`b#c" in json.loads((tmp_path / "report.json").read_text())["models"]


@pytest.mark.parametrize("name", NASTY)
def test_model_card_shows_names(make_trainer, tmp_path, name):
    classifier = bert_classifier()
    trainer = make_trainer(discriminator=classifier)
    classifier.config._name_or_path = trainer.model.config._name_or_path = name
    kwargs = {"stop_strings": [name]}
    trainer.discriminator.calibration = calibration(generation_kwargs=kwargs)
    trainer.hub_model_id = name
    trainer.create_model_card(model_name=name, dataset_name=name, tags=[name])
    path = tmp_path / "out" / "README.md"
    card = ModelCard.load(path)
    front = yaml.safe_load(path.read_text().split("\n---\n")[0].removeprefix("---\n"))
    for data in (card.data.to_dict(), front):
        assert not {"base_model", "datasets"} & set(data)  # which no such name can be the id of
        assert name in data["tags"]
    tokens = parse(card.text)
    headings = inlines(tokens, "heading_open")
    assert headings[:4] == [name, "Quick start", "The discriminator", "Sampling with both models"]
    assert inlines(tokens, "td_open")[:2] == ["discriminator", name]
    first = next(token for token in tokens if token.type == "inline" and "fine-tuned version" in token.content)
    assert text_of(first).startswith(f"A fine-tuned version of {name} on {name}, trained")
    blocks = {token.info: token.content for token in tokens if token.type == "fence"}
    command = shlex.split(blocks["bash"])
    assert command[command.index("--model") + 1] == name.replace("\r\n", "\n")  # as in every block of code
    assert json.loads(command[command.index("--generation_kwargs") + 1]) == kwargs
    for block in (token for token in tokens if token.type == "fence" and token.info == "python"):
        compile(block.content, "card", "exec")


@pytest.mark.parametrize("name", NASTY)
def test_model_card_shows_prompts_and_samples(make_trainer, tmp_path, name):
    trainer = make_trainer()
    trainer._logs["prompt"].extend([name, "cat"])  # the tokenizer knows few of the first ones
    trainer._logs["completion"].extend([name, "c"])
    trainer.create_model_card()
    tokens = parse(ModelCard.load(tmp_path / "out" / "README.md").text)
    shown = [token.content.removesuffix("\n") for token in tokens if token.type == "fence" and token.info == "text"]
    assert shown[-3:] == [name.replace("\r\n", "\n"), "cat", "c"]
    for block in (token for token in tokens if token.type == "fence" and token.info == "python"):
        compile(block.content, "card", "exec")
    assert inlines(tokens, "heading_open")[4:6] == ["Samples", "Training procedure"]
