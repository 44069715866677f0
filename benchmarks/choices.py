"""How well snapshots can be chosen without target labels, over all runs of a finished comparison, as a result file.

    attentkit compare benchmarks/phantom.toml --variant small --out runs/phantom
    python benchmarks/choices.py runs/phantom benchmarks/results/selectors.md "attentkit compare ..."

The file holds each selector's mean regret, rank correlation and comparison with the last snapshot, over all runs and in each
direction, and its regret by row. Every choice of every run is left beside it as .csv. Rows that see target labels are left
out. What was written by hand below "What to make of it" stays.
"""

import argparse
import json
import math
from collections.abc import Iterable
from datetime import date
from pathlib import Path

from record import write

from attent_kit.engine.compare.grade import GradedRun, find_runs, grade_runs
from attent_kit.plugins import load
from attent_kit.report.scores import ORACLE
from attent_kit.report.selection import aggregate, graded_csv
from attent_kit.report.table import grid


def main() -> None:
    """Grade all runs and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of the comparison")
    parser.add_argument("result", type=Path, help="Markdown file to write")
    parser.add_argument("command", help="the command that made the runs")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    options = parser.parse_args()
    found, bare = find_runs([options.folder])
    failed: list[str] = []
    graded = grade_runs(
        found,
        load().registry,
        options.device,
        lambda run, done, total: print(f"{run}: {done}/{total}", flush=True) if done == 0 else None,
        lambda folder, error: failed.append(f"{folder}: {error}"),
    )
    free = [run for run in graded if not run.bound]
    if not free:
        parser.error(f"{options.folder} holds no finished run that is trained without target labels")
    left_out = [f"{len(bare)} without snapshots"] * bool(bare) + [f"{len(failed)} that could not be graded"] * bool(
        failed
    )
    made_by = json.loads((found[0] / "env.json").read_text())
    packages = ", ".join(f"{name} {version}" for name, version in made_by["packages"].items())
    lines = [
        "# Snapshots chosen without target labels",
        "",
        f"{len(free)} runs of {options.folder.name}; {len(graded) - len(free)} runs that see target labels are left out"
        + "".join(f", and {words}" for words in left_out) + ". Of each run the snapshots, the last included, were scored by "
        "every selector during training, on target training images. Dice in %: the mean over organs of the mean over target "
        "test cases, whose labels grade the choices here and made none but the oracle's. Regret: Dice lost to the best "
        "snapshot. rho: Spearman's rank correlation of score and Dice over the snapshots of a run, 1 if they agree.",
        "",
        *block("All runs", free),
    ]  # fmt: skip
    for direction in dict.fromkeys(run.direction for run in free):
        lines += block(direction, [run for run in free if run.direction == direction])
    lines += [
        "## Regret by row",
        "",
        *by_row(free),
        "",
        "## How it was made",
        "",
        f"`{options.command}`, `python benchmarks/choices.py {options.folder} {options.result}`, {date.today()}, "
        f"{made_by['device']}, {made_by['threads']} threads, {made_by['precision']}, Python {made_by['python']}, "
        f"attent-kit {made_by['attent_kit']}, {packages}.",
        "",
    ]
    write(options.result, lines)
    graded_csv(options.result.with_suffix(".csv"), graded)
    for sentence in failed:
        print(f"Left out: {sentence}")


def block(title: str, runs: Iterable[GradedRun]) -> list[str]:
    """The means of each selector as a Markdown table under a heading."""
    head = ["selector", "runs", "Dice", "regret", "worst regret", "rho", "better than last", "worse than last"]
    rows = [
        [m.selector, str(m.runs), percent(m.dice), percent(m.regret), percent(m.worst_regret),
         "-" if math.isnan(m.rho) else f"{m.rho:+.2f}", f"{100 * m.better_than_last:.0f} %", f"{100 * m.worse_than_last:.0f} %"]
        for m in aggregate(run.selectors for run in runs)
    ]  # fmt: skip
    return [f"## {title}", "", *grid(head, rows), ""]


def by_row(runs: list[GradedRun]) -> list[str]:
    """Mean regret of each selector in the runs of each row."""
    rows = list(dict.fromkeys(run.row for run in runs))
    found = {row: {m.selector: m for m in aggregate(r.selectors for r in runs if r.row == row)} for row in rows}
    names = [m.selector for m in aggregate(run.selectors for run in runs) if m.selector != ORACLE]
    lines = [
        [
            row,
            *(percent(by_name[name].regret) if name in by_name else "-" for name in names),
            percent(by_name[ORACLE].dice),
        ]
        for row, by_name in found.items()
    ]
    return grid(["row", *names, "oracle's Dice"], lines)


def percent(value: float) -> str:
    """Dice in percent, or a dash."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


if __name__ == "__main__":
    main()
