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
    help="As which data set it lies there: nifti, chaos, btcv, nnunet or msd.",
)
@click.option("--size", default="small", show_default=True, help="small (64 px), medium (128 px) or full (256 px).")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Which patients.")
def command(out: Path, layout: str, size: str, seed: int) -> None:
    """Write a labelled phantom to the folder OUT: CT and MR abdomens of different patients.

    As NIfTI the labels are 1 liver, 2 right kidney, 3 left kidney, 4 spleen. In another layout it lies there as that data
    set does, with its names, its label values and its file formats; BTCV has CT alone.
    """
    from attent_kit.data.phantom.export import export_phantom

    with bars(("phantom", 1)) as (bar,):
        bar.reset("phantom", 0)
        export_phantom(out, layout, size, seed, report=lambda case, done, total: _tell(bar, case, done, total))
    words = shlex.join(["attentkit", "prepare", *map(str, _example(out, layout))])
    click.echo(f"{out}: the phantom, laid out as {layout}. Next, for example:\n  {words}")


def _example(out: Path, layout: str) -> list[str | Path]:
    """What to tell `attentkit prepare` of one domain in a layout."""
    return {
        "nifti": [out / "ct" / "images", "--labels", out / "ct" / "labels", "--modality", "ct", "--out", "ct.h5"],
        "chaos": [out, "--part", "t2spir", "--out", "mr.h5"],
        "btcv": [out, "--out", "ct.h5"],
        "nnunet": [out / "Dataset001_PhantomCT", "--out", "ct.h5"],
        "msd": [out / "Task01_PhantomCT", "--out", "ct.h5"],
    }[layout]


def _tell(bar, case: str, done: int, total: int) -> None:  # type: ignore[no-untyped-def]
    if done <= 1:
        bar.reset("phantom", total)
    bar.to(done, case)
