"""`attentkit phantom`."""

import shlex
from pathlib import Path

import click

from attent_kit.cli.output import bars


@click.command("phantom")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--layout",
    default="nifti",
    show_default=True,
    help="The data set whose layout it has: nifti, chaos, btcv, nnunet or msd.",
)
@click.option("--size", default="small", show_default=True, help="small (64 px), medium (128 px) or full (256 px).")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Which patients.")
@click.option(
    "--split",
    default="sifa-abdominal",
    show_default=True,
    help="For chaos and btcv: the named split whose test cases are there by their numbers.",
)
def command(out: Path, layout: str, size: str, seed: int, split: str) -> None:
    """Write a labelled phantom to the folder OUT: CT and MR abdomens of different patients.

    As NIfTI the labels are 1 liver, 2 right kidney, 3 left kidney, 4 spleen. In another layout it lies there like that data
    set, with its names, its case numbers, its label values and its file formats, so that commands for the data set can
    be tried on it; BTCV has CT alone.
    """
    from attent_kit.data.phantom import PhantomOptions, write_phantom

    options = PhantomOptions(layout, size, seed, split)
    with bars(("phantom", 0)) as (bar,):
        written = write_phantom(out, options, bar.count("phantom"))
    words = shlex.join(["attentkit", "prepare", *written.prepare_words()])
    click.echo(f"{out}: the phantom, laid out as {layout}. Next, for example:\n  {words}")
