"""`attentkit prepare`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from attent_kit.cli.output import bars, print_json
from attent_kit.errors import ConfigError

DEFAULT_ORGANS = "liver=1,right kidney=2,left kidney=3,spleen=4"


@click.command("prepare")
@click.argument("images", type=click.Path(path_type=Path))
@click.option(
    "--labels", type=click.Path(path_type=Path), help="Folder or file of label maps on the grids of the images."
)
@click.option("--out", "-o", required=True, type=click.Path(path_type=Path), help="Prepared file to write (.h5).")
@click.option("--modality", required=True, help="ct or mr; ct is windowed in HU, all others by percentiles.")
@click.option("--domain", help="Name in directions such as mr2ct; the modality if left out.")
@click.option(
    "--organs", default=DEFAULT_ORGANS, show_default=True,
    help="Organs in task order with their values in the label maps; 2+3 joins values, *=0 at the end ignores all others.",
)  # fmt: skip
@click.option("--size", default=256, show_default=True, help="Pixels of a side of a slice.")
@click.option("--channels", default=1, show_default=True, help="Neighbouring slices as channels, an odd number.")
@click.option("--window", type=float, nargs=2, help="Low and high grey value, HU for ct.  [ct: -125 275]")
@click.option("--per-volume", is_flag=True, help="Percentiles of each volume by itself, not of the training cases.")
@click.option("--split", help="Named split by the numbers of the cases: sifa-abdominal or protocontra.")
@click.option("--train", help="Cases for training, comma-separated; with none of the three, 70/10/20 % by seed.")
@click.option("--val", help="Cases for validation, comma-separated.")
@click.option("--test", help="Cases for testing, comma-separated.")
@click.option("--seed", default=0, show_default=True, help="Seed of the split.")
@click.option("--allow-unlabelled", is_flag=True, help="Accept images without a label map, as a target may have.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def command(
    images: Path, labels: Path | None, out: Path, modality: str, domain: str | None, organs: str, size: int, channels: int,
    window: tuple[float, float] | None, per_volume: bool, split: str | None, train: str | None, val: str | None,
    test: str | None, seed: int, allow_unlabelled: bool, as_json: bool,
) -> None:  # fmt: skip
    """Turn the NIfTI volumes of IMAGES into one prepared file.

    IMAGES is a folder, a file, or a CSV list with the columns image, labels and, if wanted, case.

    Canonical orientation, axial slices padded to a square and resampled in plane, grey values to [-1, 1] with constants
    from the training cases alone. What was done to which file is kept inside.
    """
    from attent_kit.data.intensity import Intensity
    from attent_kit.data.labelmap import LabelMap
    from attent_kit.data.layouts import find_pairs
    from attent_kit.data.prepare import prepare

    modality = modality.lower()
    if window and per_volume:
        raise ConfigError("--window and --per-volume exclude each other: type one of them.")
    listed = _split(train, val, test)
    if split is not None and listed:
        raise ConfigError(f"--split and --{next(iter(listed))} exclude each other: type one of them.")
    intensity = Intensity("window", *window) if window else Intensity("percentiles-per-volume") if per_volume else None
    pairs = find_pairs(images, labels, allow_unlabelled=allow_unlabelled or labels is None)
    with bars((f"prepare {modality}", len(pairs))) as (bar,):
        manifest = prepare(
            pairs, out, modality=modality, domain=domain, organs=LabelMap.parse(organs), size=size, channels=channels,
            intensity=intensity, split=split or listed, seed=seed,
            report=lambda case, i, n: bar.to(min(i, len(pairs)), case),
        )  # fmt: skip
    for warning in manifest["warnings"]:
        click.echo(f"Warning: {warning}", err=True)
    if as_json:
        print_json(manifest)
        return
    for part in ("train", "test"):
        if not manifest["splits"][part]:
            click.echo(f"Warning: no case is for {part}ing: a source needs training cases, a target both.", err=True)
    labelled = sum(case["labels"] is not None for case in manifest["cases"])
    counts = ", ".join(f"{len(cases)} {part}" for part, cases in manifest["splits"].items())
    grey = manifest["intensity"]
    rule = f"{grey['kind']} {grey['low']:g} to {grey['high']:g}" if "low" in grey else grey["kind"]
    slices = sum(case["slices"] for case in manifest["cases"])
    click.echo(
        f"{out}: {len(manifest['cases'])} case(s) ({counts}; {labelled} labelled), {slices} slices of {size} px, {rule}."
    )


def _split(train: str | None, val: str | None, test: str | None) -> Mapping[str, Sequence[str]] | None:
    given = {"train": train, "val": val, "test": test}
    named = {
        name: [c.strip() for c in cases.split(",") if c.strip()] for name, cases in given.items() if cases is not None
    }
    return named or None
