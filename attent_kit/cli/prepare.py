"""`attentkit prepare`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from attent_kit.cli.output import bars, print_json
from attent_kit.plugins import load

if TYPE_CHECKING:
    from attent_kit.data.prepared.file import Prepared

WARNINGS_SHOWN = 20


@click.command("prepare")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--out", "-o", required=True, type=click.Path(path_type=Path), help="Prepared file to write (.h5).")
@click.option("--layout", help="How PATH is read; recognised if left out. `attentkit list layouts` shows all.")
@click.option("--part", help="Which of several data sets in PATH, such as a sequence.")
@click.option(
    "--labels", type=click.Path(path_type=Path), help="Folder or file of label maps, where PATH holds images only."
)
@click.option("--allow-unlabelled", is_flag=True, help="Accept images without a label map, as a target may have.")
@click.option(
    "--modality", help="ct or mr, where the data set does not say; ct is windowed in HU, others by percentiles."
)
@click.option("--domain", help="Name in directions such as mr2ct; the modality if left out.")
@click.option(
    "--organs",
    help="Organs in task order with their label values; 2+3 joins values, spleen=? is not annotated, *=0 at the end ignores all "
    "others.  "
    "[as the data set names them, or liver=1,right kidney=2,left kidney=3,spleen=4]",
)
@click.option(
    "--add", nargs=3, multiple=True, metavar="PATH LABELS ORGANS",
    help="Another data set for the same domain, its label maps, and its organs as in --organs; - leaves one to the data set. "
    "May be given several times.",
)  # fmt: skip
@click.option("--size", default=256, show_default=True, help="Side of a slice in pixels.")
@click.option(
    "--pixel", type=float, help="Side of a pixel in mm; slices are cut or padded to --size.  [field of view / size]"
)
@click.option(
    "--plane", type=click.Choice(("axial", "sagittal", "coronal", "auto")),
    help="Plane of the slices; auto: the one that the scans were acquired in.  [axial]",
)  # fmt: skip
@click.option(
    "--centre", type=click.Choice(("grid", "body")), default="grid", show_default=True,
    help="What slices are centred on. body: the patient's body, found by grey values alone; all else becomes air.",
)  # fmt: skip
@click.option("--channels", default=1, show_default=True, help="Neighbouring slices as channels, an odd number.")
@click.option("--window", type=float, nargs=2, help="Low and high grey value, HU for ct.  [ct: -125 275]")
@click.option("--per-volume", is_flag=True, help="Percentiles of each volume by itself, not of the training cases.")
@click.option("--split", help="sifa-abdominal or protocontra: named splits, by the numbers of the cases.")
@click.option("--fold", help="K/N: test on part K of N parts of the patients, K from 0, dealt by --seed.")
@click.option(
    "--train",
    help="Cases for training, comma-separated, or all; if no split is given: the data set's own, or 70/10/20 % by seed.",
)
@click.option("--val", help="Cases for validation, comma-separated.")
@click.option("--test", help="Cases for testing, comma-separated.")
@click.option("--seed", default=0, show_default=True, help="Seed of the split.")
@click.option(
    "--foreground-only", is_flag=True,
    help="Train only on slices with an organ, where this is the source. Goes by labels: never on a target or test case.",
)  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [as processors and memory allow, 8 at most]")
@click.option("--preview", type=click.Path(path_type=Path), help="Picture of some cases to check by eye (.png).")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def command(path: Path, out: Path, workers: int | None, preview: Path | None, as_json: bool, **options: Any) -> None:
    """Turn the volumes of one domain into one prepared file.

    PATH is a data set as it was unpacked (CHAOS, BTCV, nnU-Net, ...: `attentkit list layouts`), a folder of NIfTI files,
    one file, or a CSV list with the columns image, labels and, if wanted, case and organs.

    Canonical orientation, slices padded to a square and resampled in plane, grey values to [-1, 1] with constants
    from the training cases alone. What was done to which file is kept inside and, as TOML, beside the prepared file. If
    it is stopped, the same command continues where it stopped.
    """
    from attent_kit.data.prepare.options import PrepareOptions
    from attent_kit.data.prepare.prepare import prepare_data_set

    chosen = PrepareOptions(**options)
    with bars(("prepare", 0)) as (bar,):
        prepared = prepare_data_set(
            path, out, load().registry, chosen, preview=preview, workers=workers, report=bar.count("prepare")
        )
    _warn(prepared)
    if as_json:
        print_json(prepared.manifest)
        return
    for line in (*prepared.decisions, _summary(prepared)):
        click.echo(line)


def _summary(prepared: "Prepared") -> str:
    cases, grey = prepared.cases, prepared.intensity
    labelled = sum(case.has_labels for case in cases)
    counts = ", ".join(f"{len(prepared.ids(part))} {part}" for part in prepared.manifest["splits"])
    rule = f"{grey.kind} {grey.low:g} to {grey.high:g}" if grey.low is not None and grey.high is not None else grey.kind
    side = f"{prepared.size} px" + (f" of {prepared.pixel_mm:g} mm" if prepared.pixel_mm else "")
    side = f"{side}, {prepared.plane}" if prepared.plane != "axial" else side
    side += ", centred on the body" if prepared.centre == "body" else ""
    slices = sum(case.slices for case in cases)
    return f"{prepared.path}: {len(cases)} case(s) ({counts}; {labelled} labelled), {slices} slices of {side}, {rule}."


def _warn(prepared: "Prepared") -> None:
    warnings = prepared.warnings
    for warning in warnings[:WARNINGS_SHOWN]:
        click.echo(f"Warning: {warning}", err=True)
    if len(warnings) > WARNINGS_SHOWN:
        click.echo(f"Warning: and {len(warnings) - WARNINGS_SHOWN} more, which the manifest lists.", err=True)
