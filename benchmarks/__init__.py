"""The measurements behind the documentation, one package per question, each run by `python -m benchmarks.NAME`.

- `recipe`: what each part of the recipe is worth, on the demo's language;
- `oracle`: adversarial training where the density of real text is known;
- `real_text`: adversarial against supervised training on real text;
- `guided_language`, `guided_text`: the discriminator at generation, on the demo's language and on real text;
- `language_frontier`, `frontier`: generators trained in several ways, with and without it, on both;
- `discriminators`: what a discriminator learns from more texts, or another model;
- `verifiable`, `verifiable_text`: rewards that a program checks, on both;
- `applications`: stories, chatbots, translation;
- `two_sample`: what each two-sample test sees;
- `mixture`: which losses and anchors find lost modes;
- `safety`: what the safety gate keeps out, and `safety.generation`: its classifier as a filter at generation;
- `curves`: how a healthy run looks, and some that failed;
- `pictures`: the pictures of the concept pages, from committed results;
- `hardware`: time, memory, architectures and precisions;
- `robustness`: whether a step depends on how its batch is divided;
- `readme_snippet`: the README's first example;
- `pages`: writes the pages of the documentation from the committed results.

They share `sweep` (jobs, results, tables), `sources` (models and data by Hub id or path) and `testbed` (what this
machine and these versions are). The committed results lie in `results`, one JSON object per line.
"""
