"""The pages: links, pictures and formulas lead somewhere, and what is quoted is what the package says."""

import ast
import dataclasses
import importlib.util
import json
import re
from functools import cache
from pathlib import Path

import pytest

from hf_mgan import AdversarialConfig
from hf_mgan.watchdog import failure_modes


ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [DOCS / "index.md", *sorted({*DOCS.glob("*.md"), *DOCS.glob("how_to/*.md")} - {DOCS / "index.md"})]
LINK = re.compile(r"!?\[(?P<text>[^\]]*)\]\((?!https?:)(?P<path>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)")
CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", re.DOTALL)
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)", re.DOTALL)
# What other packages say, which our own code does not hold.
OTHERS = ("transformers", "PyTorch")


def name(page):
    return str(page.relative_to(DOCS))


def prose(page):
    return CODE.sub("", page.read_text())


def anchors(page):
    """The anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def strings_of(path):
    """All texts in a module, with `{}` where a value is put in."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def section(page, heading):
    text = page.read_text()
    assert f"\n## {heading}\n" in text, f"{page.name} has no section {heading}"
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_links_and_their_anchors_lead_somewhere(page):
    for link in LINK.finditer(prose(page)):
        target = page if not link["path"] else page.parent / link["path"]
        assert target.exists(), link.group()
        if link["anchor"]:
            assert link["anchor"] in anchors(target), link.group()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_page_says_when_to_use_it_and_when_not(page):
    opening = page.read_text().split("\n## ")[0]
    assert "Use it when" in opening
    assert "Do not use it when" in opening


def test_every_page_stands_in_one_contents_list():
    listed = [
        line
        for toctree in re.findall(r"```\{toctree\}(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL)
        for line in toctree.split()
        if not line.startswith(":") and (DOCS / f"{line}.md").exists()
    ]
    assert sorted(listed) == sorted(name(page).removesuffix(".md") for page in PAGES[1:])


def test_pictures_are_there_described_and_small():
    used = set()
    for page in PAGES:
        for description, path in PICTURE.findall(prose(page)):
            picture = (page.parent / path).resolve()
            assert len(description) > 20, f"{page.name}: {path} has no description"
            assert "\n" not in description, f"{page.name}: MyST joins the words of two lines in the text of {path}"
            assert picture.stat().st_size < 50_000, path
            assert re.search(r"fill(: |=\")#fff", picture.read_text()), f"{path} has no ground for dark pages"
            used.add(picture)
    assert used == {path.resolve() for path in (DOCS / "_static").glob("*.svg")}


@pytest.mark.parametrize("page", [page for page in PAGES if "$" in prose(page)], ids=name)
def test_formulas_are_drawn_without_a_network(page):
    pytest.importorskip("docutils", reason="the extra `docs` is not installed")
    spec = importlib.util.spec_from_file_location("conf", DOCS / "conf.py")
    conf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conf)
    assert conf.html_math_renderer == "mathml"
    for block, inline in FORMULA.findall(re.sub(r"`[^`]*`", "", prose(page))):
        assert "<math" in conf.tex2mathml(block or inline, as_block=bool(block))


OTHER_ALARMS = {name: getattr(failure_modes, name) for name in ("discriminator_cold", "non_finite", "unsafe")}
ALARMS = {**failure_modes.FAILURE_MODES, **OTHER_ALARMS}


@pytest.mark.parametrize("alarm", ALARMS)
def test_alarm_has_a_section_with_what_it_says_to_change(alarm):
    """Each setting that the message names stands among the remedies of the section."""
    text = section(DOCS / "troubleshooting.md", f"`{alarm}`")
    source = (ROOT / "hf_mgan" / "watchdog" / "failure_modes.py").read_text()
    (function,) = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == alarm)
    said = " ".join(
        node.value
        for statement in function.body[1:]
        for node in ast.walk(statement)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    settings = {field.name for field in dataclasses.fields(AdversarialConfig)} | {"discriminator_peft_config"}
    assert {word for word in re.findall(r"\w+", said) if word in settings and word not in text} == set()


@cache
def strings_of_package():
    return [text for path in (ROOT / "hf_mgan").rglob("*.py") for text in strings_of(path)]


@pytest.mark.parametrize("page", [DOCS / "troubleshooting.md", *DOCS.glob("how_to/*.md")], ids=name)
def test_quoted_errors_are_what_the_package_says(page):
    """In tables: `so` in the troubleshooting's errors, *so* in the how-tos."""
    said = strings_of_package()
    if page.name == "troubleshooting.md":
        cells = re.findall(r"^\| (`.*?) \|", section(page, "Errors"), re.MULTILINE)
        cells = [cell for cell in cells if not cell.endswith(tuple(f"({other})" for other in OTHERS))]
        assert len(cells) >= 15
        quoted = [one for cell in cells for one in re.findall(r"`([^`]+)`", cell)]
    else:
        cells = re.findall(r"^\| (.*?) \|", page.read_text(), re.MULTILINE)
        quoted = [one for cell in cells for one in re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", cell)]
    for words in quoted:
        assert any(words in text for text in said), words


def test_how_to_says_what_to_do_when_it_looks_otherwise():
    for page in DOCS.glob("how_to/*.md"):
        if page.name != "when_not_to_use.md":
            assert "## When it looks otherwise" in page.read_text(), page.name


def test_curves_of_the_pictures_are_those_of_the_results():
    """The alarms that the page tells of are in the results of the run."""
    results = (ROOT / "benchmarks" / "results" / "curves.jsonl").read_text().splitlines()
    runs = {run["name"]: run for run in map(json.loads, results)}
    alarms = {name: {alarm["name"] for alarm in run["alarms"]} for name, run in runs.items()}
    assert alarms["healthy"] == set()
    assert "discriminator_saturated" in alarms["saturated"]
    assert "length_runaway" in alarms["hacked"]
    shown = set(re.findall(r"_static/curves_(\w+)\.svg", (DOCS / "how_to" / "reading_curves.md").read_text()))
    assert shown == set(runs)
