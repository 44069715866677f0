"""Turn the folder of a finished comparison into a result file that says how it was made.

    attentkit compare benchmarks/phantom.toml --variant small --shift --out runs/phantom
    python benchmarks/record.py runs/phantom benchmarks/results/phantom-small.md "attentkit compare ..." \
        --figure boxes-mr2ct-dice --figure shift-mr2ct-attent

The file holds the table, then for each method the wall time, steps per second and peak memory of its stages. The numbers of
the table, unrounded, are left beside it as .csv. What was written by hand below "What to make of it" stays. Each --figure of
the report, or of shift and audit beside it, goes to docs/_static/ as PNG.
"""

import argparse
import json
from collections import defaultdict
from datetime import date
from pathlib import Path
from statistics import median

from PIL import Image

BY_HAND = "## What to make of it"
DOCS = Path(__file__).parents[1] / "docs" / "_static"


def main() -> None:
    """Write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of the comparison")
    parser.add_argument("result", type=Path, help="Markdown file to write")
    parser.add_argument("command", help="the command that made it")
    parser.add_argument(
        "--figure", action="append", default=[], help="name of a figure of the report, to docs/_static/"
    )
    options = parser.parse_args()
    runs = sorted(options.folder.glob("*/*/seed*/speed.json"))
    if not runs:
        parser.error(f"{options.folder} holds no finished run")
    made_by = json.loads((runs[0].parent / "env.json").read_text())
    measured, _, _ = (options.folder / "table.md").read_text().partition("# Published")
    packages = ", ".join(f"{name} {version}" for name, version in made_by["packages"].items())
    lines = [
        measured.rstrip(),
        "",
        "## How it was made",
        "",
        f"`{options.command}`, {date.today()}, {made_by['device']}, {made_by['threads']} threads, {made_by['precision']}, "
        f"Python {made_by['python']}, attent-kit {made_by['attent_kit']}, {packages}.",
        "",
        *speeds(runs),
        "",
    ]
    write(options.result, lines)
    options.result.with_suffix(".csv").write_text((options.folder / "table.csv").read_text())
    for name in options.figure:
        found = next(path for place in ("figures", ".") if (path := options.folder / place / f"{name}.png").exists())
        few_colours = Image.open(found).convert("RGB").quantize(64, dither=Image.Dither.NONE)
        few_colours.save(DOCS / f"{options.result.stem}-{name}.png", optimize=True)


def write(result: Path, lines: list[str]) -> None:
    """The result file, with what was written by hand below it."""
    before = result.read_text(encoding="utf-8") if result.exists() else ""
    _, title, by_hand = before.partition(BY_HAND)
    result.write_text("\n".join(lines) + ("\n" + title + by_hand if title else ""), encoding="utf-8")


def speeds(runs: list[Path]) -> list[str]:
    """A row for each method and stage: median over its runs."""
    found: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    for path in runs:
        for stage, speed in json.loads(path.read_text()).items():
            found[path.parent.parent.name, stage].append(speed)
    rows = [
        "| method | stage | steps | seconds | steps / s | peak memory of the process, MiB |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for (method, stage), each in found.items():
        cells = [median(s[name] for s in each) for name in ("steps", "seconds", "steps_per_second", "peak_memory_MiB")]
        rows.append(f"| {method} | {stage} | {cells[0]:.0f} | {cells[1]:.0f} | {cells[2]:.2f} | {cells[3]:.0f} |")
    return rows


if __name__ == "__main__":
    main()
