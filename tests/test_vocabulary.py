"""The words of the field, held in every file: code, names, docs, messages and tests.

`pytest tests/test_vocabulary.py -k hf_mgan/metrics` checks one folder. Each rule says what to write instead. Names are
read as the words that they are made of, so that `game_table` and `GameTable` are two words each.
"""

import re
from pathlib import Path
from typing import NamedTuple

import pytest


ROOT = Path(__file__).parents[1]
FOLDERS = ("hf_mgan", "tests", "examples", "benchmarks", "docs", ".github")
SUFFIXES = {".py", ".md", ".in", ".yaml", ".yml"}
AT_THE_ROOT = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "Makefile", "pyproject.toml")
LEFT_OUT = ("docs/_build", "benchmarks/results", "tests/test_vocabulary.py")

GAP = r"[\s#\"'`*]+"  # between two words of a phrase, which may stand in two lines, or in two strings
COUNTED = (
    "batch(es)?|bits?|bytes?|calls?|characters?|columns?|completions?|curves?|entropy|entry|entries|folders?|[gmk]i?b|"
    "hours?|labels?|lines?|logits?|marks?|metrics?|minutes?|modules?|ms|nats?|numbers?|once|one|pass(es)?|prompts?|"
    "points?|references?|results?|rewards?|rows?|runs?|s|samples?|scores?|seconds?|sentences?|squared|steps?|terms?|"
    "texts?|times?|tokens?|twice|updates|values?|verdicts?|windows?|words?"
)
UNIT = (
    "batch|completion|device|epoch|evaluation|file|folder|forward|gpu|group|layer|line|logit|metric|minute|model|"
    "module|n-gram|pass|place|process|prompt|rank|row|run|sample|second|seed|sentence|setting|side|step|subcommand|"
    "temperature|test|text|token|update|window|word"
)


class Rule(NamedTuple):
    """Words that are not ours to use.

    Args:
        write: What to write instead.
        pattern: What is looked for, as whole words in lower case; `_` stands between two words, as in [`GAP`].
        caught: Texts that it has to find, each for itself.
        free: Texts that it has to leave alone.
    """

    write: str
    pattern: str
    caught: tuple[str, ...]
    free: tuple[str, ...] = ()


class Allowed(NamedTuple):
    """Words that stay although a rule finds them.

    Args:
        files: Pattern of the paths it holds for, as in `Path.match`.
        pattern: What is taken out before the rules are applied, as it is spelt.
        reason: Why.
    """

    files: str
    pattern: str
    reason: str


RULES = [
    Rule(
        "metric or measure",
        r"figures?",
        ("the figures", "text_figures", "DemoFigures", "a figure of 0.5"),
        ("configure", "figsize=(3, 4)"),
    ),
    Rule(
        "training or adversarial training",
        r"games?|gameplay|(?:play|plays|played|playing)(?!_(?:a|no)_(?:part|role))",
        ("the game", "game_table", "GameResult", "to play on", "is played", "both play"),
        ("display", "replayed_prob", "a playground", "chance plays no part"),
    ),
    Rule(
        "generator, discriminator, model or both models",
        r"players?",
        ("both players", "tiny_players.py", "DemoPlayers"),
    ),
    Rule(
        "update, step or round",
        r"(?:an?|each|every|one|its?|this|that|per|next|last|own|first|the|(?:discriminator|generator)(?:'s|s)?)_turns?"
        r"(?!_(?:off|on|out|around|round|into|the))|(?:self|trainer|training)\. ?turns?|turn\.py",
        ("DiscriminatorTurn", "self._turn.play", "each turn", "training/turn.py", "the discriminator's turn"),
        ("in turn", "turns the rewards into", "multi-turn", "which turns out", "it turns the packing off"),
    ),
    Rule(
        "per (nats per token, one per seed)",
        rf"(?:{COUNTED})_an?_(?:{UNIT})(?!_at_a_time)|"
        r"(?<=, )an? (?:process|side|seed|device|text|token|row|step)(?=[.,;:)]|\n\n)",
        ("nats a token", "texts a\n    side", "# one row\n# a model", "3.5 s a step", "the newest ones, a process."),
        ("that a token", "of a step", "at a temperature", "half a sentence", "in a row", "the pass a batch at a time"),
    ),
    Rule(
        "skips its update (or: is skipped)",
        r"rested|resting|rests(?!_(?:on|upon|with))|(?:do|does|did|must|may|can|could|would|will|should|to|not|both|lets?|"
        r"generator|discriminator|model)_rest(?!_of)",
        ("the discriminator rests", "would rest", "does not\n        rest", "discriminator_rests"),
        ("the rest", "rest = content[1:]", "what it rests on", "and the rest."),
    ),
    Rule(
        "reward hacking, exploits or earns",
        r"buys?|buying|bought|pa(?:y|ys|id|ying)_for",
        ("is bought", "length_bought", "pays for length", "pays_for_dogs", "was paid\nfor"),
        ("pays a completion", "paid", "pay the reward"),
    ),
    Rule("quantised, 4-bit or 8-bit", r"few_bits", ("in few bits", "in_few_bits"), ("a few bitsandbytes",)),
    Rule(
        "two-sample test, C2ST, classifier or score",
        r"judge|judges|judged|judging|judgements?|judgments?",
        ("a fresh judge", "judge_auc", "JudgeResult", "is judged", "judge_samples.py"),
    ),
    Rule(
        "held-out text",
        r"fresh_(?:real_)?(?:texts?|sentences?|references?|completions?)",
        ("fresh text", "fresh real texts", "fresh_sentences"),
        ("a fresh head", "fresh adapters"),
    ),
    Rule("supervised fine-tuning or SFT", r"supervision", ("more supervision",), ("supervised training",)),
    Rule("under-trained", r"beginners?", ("the generator is a beginner",), ("the beginning",)),
    Rule(
        "effective number of tokens", r"torn_(?:among|between)|is_torn", ("torn among 4 tokens", "is torn"), ("worn",)
    ),
    Rule(
        "confident",
        r"(?<!make )(?<!makes )(?<!made )(?<!making )(?:un)?sure(?:r|ly|st)?",
        ("too sure", "sure of it", "unsure"),
        ("make sure that", "measure", "makes sure"),
    ),
    Rule(
        "near chance",
        r"kn(?:ows?|owing|ew)_nothing(?!_(?:of|about))",
        ("it knows nothing", "knows\nnothing."),
        ("knows nothing of the policy",),
    ),
    Rule(
        "frozen discriminator",
        r"no_longer_learn(?:s|ing|t)?|stopped_learning",
        ("one that no longer learns", "no longer\nlearning"),
        ("no longer improves",),
    ),
    Rule(
        "the likelihood of real text falls (or rises)",
        r"(?:less|more)_likely_to_(?:it|the_(?:generator|model))|becomes?_(?:less|more)_likely",
        ("becomes less likely to it", "less likely to the generator", "texts become less likely"),
        ("less likely than", "equally likely"),
    ),
    Rule(
        "failure mode",
        r"ill(?!-)|illness(?:es)?|sick(?:ness)?",
        ("the illness", "ILLNESSES", "which is ill", '"ill": {}', "a sick generator"),
        ("will", "ill-posed", "still"),
    ),
]

ALLOWED = [
    Allowed("*", r"\b[Ff]igures? \d+\b|\b[Ff]ig\. \d+", "the figure of a paper that is cited"),
    Allowed(
        "*.py",
        r"matplotlib\.figure|(?:import|->|:) Figure\b|setattr\(Figure\b|\bFigure\(|\bplt\.figure\b|"
        r"\bfigure = Figure|\bfigure\.(?=[a-z])",
        "matplotlib's class, and a variable that holds one",
    ),
    Allowed("*.md", r"```\{figure\}", "the directive of MyST"),
    Allowed("*", r"[Ss]elf-[Pp]lay(?:ing)?", "the field's word for training against oneself, in titles of papers"),
    Allowed("*", r"LLM-as-a-[Jj]udge|LLM judges?", "the field's word for a language model that scores texts"),
    Allowed("*", r"[Mm]ulti-turn|[Ss]ingle-turn", "the field's word for messages of a conversation"),
    Allowed("docs/how_to/*.md", r"(?s)<!-- measured: samples -->.*?<!-- end -->", "what models and real texts say"),
    Allowed("docs/verifiable_text.md", r"(?s)\n## Samples\n.*", "the same"),
    Allowed("docs/frontier.md", r"(?s)\n## Samples\n.*", "the same"),
    Allowed("CHANGELOG.md", r"`[^`\n]+`", "names that a user has to replace"),
    Allowed("docs/*migration*.md", r"`[^`\n]+`", "names that a user has to replace"),
]


def files():
    """Return the paths that are checked, seen from the root."""
    inside = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES)
    paths = [*inside, *(ROOT / name for name in AT_THE_ROOT if (ROOT / name).exists())]
    names = sorted(path.relative_to(ROOT).as_posix() for path in paths)
    return [name for name in names if not name.startswith(LEFT_OUT) and "__pycache__" not in name]


def compiled(rule):
    # A word of the pattern is a whole word, but for what it says itself.
    return re.compile(rf"(?<![a-z0-9])(?:{rule.pattern.replace('_', GAP)})(?![a-z0-9])")


PATTERNS = [(rule, compiled(rule)) for rule in RULES]


def without_allowed(path, text):
    """Take out what is left alone; line breaks stay, so that lines keep their numbers."""
    for allowed in ALLOWED:
        if Path(path).match(allowed.files):
            text = re.sub(allowed.pattern, lambda match: "\n" * match.group().count("\n"), text)
    return text


def words_of(text):
    """Spell names as words, all in lower case: `fooBar_BAZ2` as `foo bar baz2`."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", text)
    return text.replace("_", " ").lower()


def found(path, text):
    """Return one line per word that is not ours: where it is, what it is and what to write."""
    text = words_of(without_allowed(path, text))
    hits = [
        (text.count("\n", 0, match.start()) + 1, " ".join(match.group().split()), rule.write)
        for rule, pattern in PATTERNS
        for match in pattern.finditer(text)
    ]
    return [f"{path}:{line}: {word!r}, write {write}" for line, word, write in sorted(hits)]


@pytest.mark.parametrize("path", files())
def test_file_uses_the_words_of_the_field(path):
    hits = [*found(path, (ROOT / path).read_text()), *(hit.replace(":1:", ":", 1) for hit in found(path, path))]
    assert not hits, f"{len(hits)} words of our own:\n" + "\n".join(hits)


@pytest.mark.parametrize(("rule", "text"), [(rule, text) for rule in RULES for text in rule.caught])
def test_rule_finds_its_word(rule, text):
    assert any(f"write {rule.write}" in hit for hit in found("hf_mgan/some.py", text))


@pytest.mark.parametrize("text", [text for rule in RULES for text in rule.free])
def test_rule_leaves_other_words_alone(text):
    assert found("hf_mgan/some.py", text) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("docs/metrics.md", "Gao et al., Figure 6"),
        (
            "hf_mgan/evaluation/plots.py",
            "from matplotlib.figure import Figure\nfigure = Figure()\nfigure.savefig(path)",
        ),
        ("docs/results.md", "```{figure} curve.png"),
        ("docs/recipe.md", "Self-Play Fine-Tuning"),
        ("CHANGELOG.md", "| `length_bought` | `length_hacking` |"),
        ("docs/how_to/chatbot.md", "<!-- measured: samples -->\nI play.\n<!-- end -->"),
        ("docs/verifiable_text.md", "\n## Samples\n\nI play.\n"),
    ],
)
def test_allowed_word_is_left_alone(path, text):
    assert found(path, text) == []


def test_allowed_word_is_refused_in_other_files():
    assert found("docs/recipe.md", "`length_bought`") != []


def test_hit_names_the_line_and_what_to_write():
    text = '"""One.\n\nTwo nats\na token, and Figure 6.\n"""\n\n\ndef play():\n    pass\n'
    assert found("hf_mgan/some.py", text) == [
        "hf_mgan/some.py:3: 'nats a token', write per (nats per token, one per seed)",
        "hf_mgan/some.py:8: 'play', write training or adversarial training",
    ]
