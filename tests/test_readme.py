import difflib
import re
from pathlib import Path

from benchmarks.readme_snippet import README, snippet, with_names
from tests.conftest import bert_classifier, texts


ROOT = README.parent


def test_first_block_runs_and_prints_metrics(tmp_path, generator, tokenizer, pair_tokenizer, monkeypatch, capsys):
    for name, model, own in (("g", generator, tokenizer), ("d", bert_classifier(), pair_tokenizer)):
        model.save_pretrained(tmp_path / name)
        own.save_pretrained(tmp_path / name)
    (tmp_path / "texts.jsonl").write_text("".join(f'{{"text": "{text}"}}\n' for text in texts(32)))
    names = {
        "HuggingFaceTB/SmolLM2-135M-Instruct": tmp_path / "g",
        "sentence-transformers/all-MiniLM-L6-v2": tmp_path / "d",
        "texts.jsonl": tmp_path / "texts.jsonl",
    }
    monkeypatch.chdir(tmp_path)
    exec(compile(with_names(snippet(), names), "README.md", "exec"), {"__name__": "readme"})
    lines = capsys.readouterr().out.splitlines()
    printed = [line for line in lines if re.match(r"\d+ \{", line)]  # TRL prints its log as well
    # Two lines of the warm-up, and two of training.
    assert [line.split()[0] for line in printed] == ["0", "0", "10", "20"]
    assert all("fake_prob" in line and "value" in line for line in printed)
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
    assert (tmp_path / "out" / "discriminator" / "model.safetensors").exists()


def test_first_block_has_fifteen_lines_and_hub_ids():
    lines = [line for line in snippet().splitlines() if line]
    assert len(lines) <= 15
    assert len(re.findall(r'"[\w-]+/[\w.-]+"', snippet())) == 2


def test_difference_shown_is_that_of_the_scripts():
    before, after = (
        (ROOT / "examples" / name).read_text().splitlines() for name in ("grpo_script.py", "adversarial_script.py")
    )
    changed = [
        line for line in difflib.unified_diff(before, after, lineterm="", n=0) if line[:3] not in ("---", "+++")
    ]
    shown = re.search(r"```diff\n(.*?)```", README.read_text(), re.DOTALL).group(1).splitlines()
    assert [line for line in changed if line[0] in "+-"] == [line for line in shown if line[0] in "+-"]


def test_links_within_the_project_lead_somewhere():
    for page in [README, *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", page.read_text()):
            assert (page.parent / Path(target)).exists(), f"{page.name}: {target}"
