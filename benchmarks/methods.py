"""The table of methods in README, from the registry and the results on the small phantom.

python benchmarks/methods.py            # print it
python benchmarks/methods.py --write    # put it between its two marks in README.md
"""

import sys
from collections import defaultdict
from pathlib import Path

from attent_kit.config import read_toml
from attent_kit.plugins import load
from attent_kit.registry import Component, Registry
from attent_kit.report.rows import records

ROOT = Path(__file__).parent.parent
SUITE = ROOT / "benchmarks" / "phantom.toml"
RESULTS = ROOT / "benchmarks" / "results" / "phantom-small.csv"
BEGIN, END = "<!-- methods: python benchmarks/methods.py --write -->", "<!-- end of methods -->"
DIRECTIONS = ("mr2ct", "ct2mr")


def table(registry: Registry) -> str:
    """Markdown: method, paper, what it aligns where, backbones, Dice on the phantom, MR to CT and CT to MR."""
    found = averages(RESULTS)
    labels = labels_by_alignment()
    lines = [
        "| alignment | paper | what it aligns, where | backbones | phantom, Dice, % |",
        "|---|---|---|---|---|",
    ]
    for component in registry.of("alignments"):
        if component.plugin == "builtin":
            lines.append(_line(component, labels[component.name], found))
    return "\n".join(lines)


def labels_by_alignment() -> dict[str, list[str]]:
    """Labels of the suite's rows, by the alignment that each has."""
    labels: dict[str, list[str]] = defaultdict(list)
    for row in read_toml(SUITE)["rows"]:
        labels[row["alignment"]].append(row["label"])
    return labels


def averages(path: Path) -> dict[tuple[str, str], float]:
    """Mean Dice over organs, seeds and cases in percent, by label and direction, from the table.csv of a comparison."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in records(file) if row["origin"] == "measured"]
    averages = [row for row in rows if row["metric"] == "dice" and row["organ"] == "average"]
    return {(row["method"], row["direction"]): 100 * float(row["mean"]) for row in averages}


def _line(component: Component, labels: list[str], found: dict[tuple[str, str], float]) -> str:
    loaded = component.load()
    file = "plugins/" + loaded.__module__.replace(".", "/") + ".py"
    scores = [(label, [found[label, direction] for direction in DIRECTIONS]) for label in labels]
    words = [
        f"{f'{label} ' if len(scores) > 1 else ''}{' / '.join(f'{s:.1f}' for s in both)}" for label, both in scores
    ]
    cells = [f"[`{component.name}`]({file})", loaded.paper, loaded.aligns, loaded.backbones, "; ".join(words)]  # type: ignore[attr-defined]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table, or write it into README.md."""
    text = table(load().registry)
    if sys.argv[1:] != ["--write"]:
        print(text)
        return
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
