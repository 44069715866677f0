"""`attentkit prepare`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from attent_kit.cli.output import bars, print_json
from attent_kit.errors import ConfigError
from attent_kit.plugins import load

WARNINGS_SHOWN = 20
_PLACES = {"path", "out", "preview", "workers", "as_json"}
"""What does not shape a byte of the prepared file, so that it is not kept in it."""


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
    help="Organs in task order with their label values; 2+3 joins values, *=0 at the end ignores all others.  "
    "[as the data set names them, or liver=1,right kidney=2,left kidney=3,spleen=4]",
)
@click.option("--size", default=256, show_default=True, help="Pixels of a side of a slice.")
@click.option("--pixel", type=float, help="mm of a pixel; slices are cut or padded to --size.  [field of view / size]")
@click.option("--channels", default=1, show_default=True, help="Neighbouring slices as channels, an odd number.")
@click.option("--window", type=float, nargs=2, help="Low and high grey value, HU for ct.  [ct: -125 275]")
@click.option("--per-volume", is_flag=True, help="Percentiles of each volume by itself, not of the training cases.")
@click.option("--split", help="sifa-abdominal or protocontra: named splits, by the numbers of the cases.")
@click.option("--fold", help="K/N: test on part K of N parts of the patients, K from 0, dealt by --seed.")
@click.option(
    "--train",
    help="Cases for training, comma-separated; if no split is said: the data set's own, or 70/10/20 % by seed.",
)
@click.option("--val", help="Cases for validation, comma-separated.")
@click.option("--test", help="Cases for testing, comma-separated.")
@click.option("--seed", default=0, show_default=True, help="Seed of the split.")
@click.option(
    "--foreground-only", is_flag=True,
    help="Train on slices with an organ only, where this is the source. Goes by labels: never on a target or test case.",
)  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [as processors and memory allow, 8 at most]")
@click.option("--preview", type=click.Path(path_type=Path), help="Picture of some cases to check by eye (.png).")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
@click.pass_context
def command(
    context: click.Context, path: Path, out: Path, layout: str | None, part: str | None, labels: Path | None,
    allow_unlabelled: bool, modality: str | None, domain: str | None, organs: str | None, size: int, pixel: float | None,
    channels: int, window: tuple[float, float] | None, per_volume: bool, split: str | None, fold: str | None,
    train: str | None, val: str | None, test: str | None, seed: int, foreground_only: bool, workers: int | None,
    preview: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Turn the volumes of one domain into one prepared file.

    PATH is a data set as it was unpacked (CHAOS, BTCV, nnU-Net, ...: `attentkit list layouts`), a folder of NIfTI files,
    one file, or a CSV list with the columns image, labels and, if wanted, case.

    Canonical orientation, axial slices padded to a square and resampled in plane, grey values to [-1, 1] with constants
    from the training cases alone. What was done to which file is kept inside and, as TOML, beside the prepared file. If
    it is stopped, the same command goes on where it was.
    """
    from attent_kit.data.prepare.prepare import prepare
    from attent_kit.data.prepare.preview import preview_of, refuse_preview
    from attent_kit.data.sets.labelmap import LabelMap
    from attent_kit.data.sets.recognise import open_layout

    intensity = _intensity(window, per_volume)
    chosen = _split(split, fold, {"train": train, "val": val, "test": test})
    refuse_preview(preview, out)
    found = open_layout(path, load().registry, layout, part, labels=labels, allow_unlabelled=allow_unlabelled or None)
    with bars(("prepare", 0)) as (bar,):
        manifest = prepare(
            found, out, modality=modality.lower() if modality else None, domain=domain,
            organs=None if organs is None else LabelMap.parse(organs), size=size, pixel=pixel, channels=channels,
            intensity=intensity, split=chosen, seed=seed, foreground_only=foreground_only, options=_typed(context),
            workers=workers, report=bar.count("prepare"),
        )  # fmt: skip
    if preview is not None:
        preview_of(out, preview)
    _warn(manifest)
    if as_json:
        print_json(manifest)
        return
    for line in (*manifest["decisions"], _summary(manifest, out)):
        click.echo(line)


def _intensity(window: tuple[float, float] | None, per_volume: bool) -> Any:
    from attent_kit.data.space.intensity import Intensity

    if window and per_volume:
        raise ConfigError("--window and --per-volume exclude each other: type one of them.")
    return Intensity("window", *window) if window else Intensity("percentiles-per-volume") if per_volume else None


def _split(split: str | None, fold: str | None, lists: Mapping[str, str | None]) -> Any:
    from attent_kit.data.sets.splits import Fold

    listed: dict[str, Sequence[str]] = {
        name: [case.strip() for case in cases.split(",") if case.strip()]
        for name, cases in lists.items()
        if cases is not None
    }
    said = [name for name, given in (("split", split), ("fold", fold)) if given is not None] + list(listed)[:1]
    if len(said) > 1:
        raise ConfigError(f"--{said[0]} and --{said[1]} exclude each other: type one of them.")
    if fold is not None:
        return Fold.parse(fold)
    return listed or None if split is None else split


def _typed(context: click.Context) -> dict[str, Any]:
    """The options that were typed, in the order of --help; of a path its last part."""
    typed = {}
    for parameter in context.command.params:
        name = parameter.name or ""
        if name not in _PLACES and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            value = context.params[name]
            word = value.name if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
            typed[parameter.opts[0].lstrip("-")] = word
    return typed


def _summary(manifest: Mapping[str, Any], out: Path) -> str:
    cases, grey = manifest["cases"], manifest["intensity"]
    labelled = sum(case["labels"] is not None for case in cases)
    counts = ", ".join(f"{len(members)} {part}" for part, members in manifest["splits"].items())
    rule = f"{grey['kind']} {grey['low']:g} to {grey['high']:g}" if "low" in grey else grey["kind"]
    side = f"{manifest['size']} px" + (f" of {manifest['pixel_mm']:g} mm" if manifest["pixel_mm"] else "")
    slices = sum(case["slices"] for case in cases)
    return f"{out}: {len(cases)} case(s) ({counts}; {labelled} labelled), {slices} slices of {side}, {rule}."


def _warn(manifest: Mapping[str, Any]) -> None:
    warnings = list(manifest["warnings"])
    for part in ("train", "test"):
        if not manifest["splits"][part]:
            warnings.append(
                f"no case is for {part}ing, and a source needs training cases, a target both: name some with --{part}, or "
                "deal them with --fold."
            )
    for warning in warnings[:WARNINGS_SHOWN]:
        click.echo(f"Warning: {warning}", err=True)
    if len(warnings) > WARNINGS_SHOWN:
        click.echo(f"Warning: and {len(warnings) - WARNINGS_SHOWN} more, which the manifest lists.", err=True)
