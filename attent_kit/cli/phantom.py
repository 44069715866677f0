"""`attentkit phantom`."""

import shlex
from pathlib import Path

import click

from attent_kit.cli.output import bars


@click.command("phantom")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--size", default="small", show_default=True, help="small (64 px), medium (128 px) or full (256 px).")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Which patients.")
def command(out: Path, size: str, seed: int) -> None:
    """Write a labelled phantom to the folder OUT: CT and MR abdomens of different patients, as NIfTI.

    Labels: 1 liver, 2 right kidney, 3 left kidney, 4 spleen.
    """
    from attent_kit.data.phantom import write_phantom

    with bars(("phantom", 1)) as (bar,):
        bar.reset("phantom", 0)
        write_phantom(out, size, seed, lambda case, done, total: _tell(bar, case, done, total))
    folder = out / "ct"
    words = [
        "attentkit",
        "prepare",
        folder / "images",
        "--labels",
        folder / "labels",
        "--modality",
        "ct",
        "--out",
        "ct.h5",
    ]
    click.echo(f"{out}: images and labels of ct and mr. Next, for example:\n  {shlex.join(map(str, words))}")


def _tell(bar, case: str, done: int, total: int) -> None:  # type: ignore[no-untyped-def]
    if done <= 1:
        bar.reset("phantom", total)
    bar.to(done, case)
