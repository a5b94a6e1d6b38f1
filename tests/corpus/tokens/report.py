"""Writes the table of docs/tokens.md: `python -m tests.corpus.tokens.report`."""

from pathlib import Path

from agw_proxy._hot.tokens import Learner, count
from tests.corpus.tokens import Sample, categories

PAGE = Path(__file__).parents[3] / "docs" / "tokens.md"
BEGIN, END = "<!-- errors: begin -->\n", "<!-- errors: end -->"


def off(estimate: float, true: float) -> str:
    """The error in percent, with its sign."""
    return f"{100 * (estimate / true - 1):+.1f} %"


def learnt(samples: list[Sample]) -> str:
    """The error for cl100k_base's counts on every other sample, after learning from the rest."""
    learner = Learner()
    for sample in samples[::2]:
        learner.learn(count(sample.body), sample.cl100k, -1)
    rest = samples[1::2]
    return off(sum(learner.prompt(count(one.body)) for one in rest), sum(one.cl100k for one in rest))


def table() -> str:
    """One row a category."""
    rows = [
        "| category | requests | o200k_base | error in total | least | greatest | cl100k_base, untaught | taught |",
        "|---|---|---|---|---|---|---|---|",
    ]
    groups = categories()
    for category, samples in [*groups.items(), ("**all**", [one for group in groups.values() for one in group])]:
        raw = sum(count(one.body) for one in samples)
        o200k, cl100k = sum(one.o200k for one in samples), sum(one.cl100k for one in samples)
        each = sorted((count(one.body) / one.o200k, one) for one in samples)
        rows.append(
            f"| {category} | {len(samples)} | {o200k:,} | {off(raw, o200k)} | {off(each[0][0], 1)} | {off(each[-1][0], 1)} "
            f"| {off(raw, cl100k)} | {learnt(samples)} |"
        )
    return "\n".join(rows) + "\n"


def main() -> None:
    """Puts the table between the page's marks."""
    page = PAGE.read_text()
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(head + BEGIN + table() + END + tail)


if __name__ == "__main__":
    main()
