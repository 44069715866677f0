"""`python -m campaigns NAME ...`: run campaigns, print their sums, and write the table."""

import argparse
import os
import sys
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: this process is forked

import torch

from attent_kit.engine.run.device import in_words
from attent_kit.engine.run.record import packages
from attent_kit.plugins import load
from campaigns.artefacts import artefacts
from campaigns.hostile import hostile
from campaigns.kills import kills
from campaigns.scarcity import scarcity
from campaigns.small import Small
from campaigns.together import together
from campaigns.trying import Try, by_kind, campaign, read_journal, summed

CAMPAIGNS = {
    "kills": (kills, 100, "SIGKILL at a step or in a write of `compare`, then the same command again"),
    "artefacts": (artefacts, 1000, "a damaged file of a finished comparison, then a command on it"),
    "scarcity": (
        scarcity,
        180,
        "a disk, file handles, a home or shared memory that is missing, then the same command with it",
    ),
    "together": (together, 20, "several processes on one folder"),
    "hostile": (hostile, 20_000, "damaged files at the functions that read them"),
}
"""What makes a try, how many there are by default, and what it is. The last limits the memory of this process."""
RESULTS = Path(__file__).parents[1] / "results" / "campaigns.md"


def main() -> int:
    """Exit code 1 if something was lost."""
    parser = argparse.ArgumentParser(prog="python -m campaigns", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"{', '.join(CAMPAIGNS)}; all without one; kills:20 is 20 of it")
    parser.add_argument("--tries", type=int, help="how many of each, those of earlier calls included")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/campaigns"), help="folder of data and journals")
    parser.add_argument(
        "--write", action="store_true", help=f"then write {RESULTS.name} from all journals of the folder"
    )
    options = parser.parse_args()
    asked = [word.partition(":") for word in options.names or CAMPAIGNS]
    for name, _, own in asked:
        if name not in CAMPAIGNS or not (own or "1").isdigit():
            parser.error(f"there is no campaign '{name}': {', '.join(CAMPAIGNS)}")
    torch.set_num_threads(1)
    load()
    small, lost = Small(options.work.resolve()), 0
    for name, _, own in asked:
        make, usual, _ = CAMPAIGNS[name]
        tries = int(own) if own else usual if options.tries is None else options.tries
        if not tries:
            continue
        done = campaign(name, tries, options.seed, small.work, make(small), lambda s: print(s, flush=True))
        print(f"{name}: {summed(done)}", flush=True)
        lost += sum(bool(each.lost) for each in done)
    if options.write:
        RESULTS.write_text(page(small.work, options.seed), encoding="utf-8")
        print(RESULTS)
    return 1 if lost else 0


def page(work: Path, seed: int) -> str:
    """The result file."""
    found = {name: read_journal(work / f"{name}-{seed}.jsonl") for name in CAMPAIGNS}
    made_with = ", ".join(f"{name} {version}" for name, version in packages("attent-kit").items())
    lines = [
        "# Campaigns",
        "",
        f"`make campaign`, {date.today()}, {in_words(torch.device('cpu'))}, one thread, Python {sys.version.split()[0]}, "
        f"{made_with}.",
        f"Seed {seed}. Networks of some thousand weights on boxes of 32 x 32 x 4 voxels: what is tried is files and processes.",
        "",
        "| campaign | what | tried | survived | lost |",
        "|---|---|---:|---:|---:|",
    ]
    for name, (_, usual, what) in CAMPAIGNS.items():
        lost = sum(bool(each.lost) for each in found[name])
        lines.append(f"| {name} | {what} | {len(found[name])} of {usual} | {len(found[name]) - lost} | {lost} |")
    for name, tries in found.items():
        lines += ["", f"## {name}", "", *_kinds(tries)]
    return "\n".join(lines) + "\n"


def _kinds(tries: list[Try]) -> list[str]:
    if not tries:
        return ["Not run."]
    rows = [f"| {kind} | {tried} | {lost} |" for kind, (tried, lost) in by_kind(tries).items()]
    return ["| kind | tried | lost |", "|---|---:|---:|", *rows]


if __name__ == "__main__":
    sys.exit(main())
