"""A trained run applied to volumes on disk: label maps on the grid of each, maps of what the network believes, and a card."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from attent_kit.data.scans.dicom_seg_write import Algorithm, require_references, write_segmentation
from attent_kit.data.scans.volumes import Volume, write_labels, write_maps
from attent_kit.engine.apply.answers import examine, require_translator, segment, translate
from attent_kit.engine.apply.card import Image, card, organ_volumes
from attent_kit.engine.apply.inputs import NIFTI, Input, find_inputs, without_ending
from attent_kit.engine.apply.trained import Domain, LoadedRun, TrainedRun, load_run, open_run
from attent_kit.errors import ConfigError, DataError, RunError
from attent_kit.files import write_text
from attent_kit.registry import Registry
from attent_kit.report.scores import LAST

DOUBTS_SHOWN = 20

ReportImage = Callable[[str, str, int, int], None]
"""What is being done, to which image, how many are done, of how many."""


@dataclass(frozen=True)
class PredictOptions:
    """How a run is applied to volumes, and which of its answers are written."""

    device: str = "auto"
    series: str | None = None
    """UID of a DICOM series, where there are several."""
    select: str = LAST
    """Snapshot of the run."""
    maps: Sequence[str] = ()
    """Some of probabilities, entropy and translation."""
    dicom_seg: Path | None = None
    """File for the labels as a DICOM Segmentation, where the image is a DICOM series."""
    strict: bool = False
    """Whether a doubt is a DataError."""
    overwrite: bool = False
    """Whether existing files are replaced; inputs never are."""


class Outputs(NamedTuple):
    """Where the answer to one image is written."""

    labels: Path
    maps: dict[str, Path]


def predict_volumes(
    run: Path,
    images: Path,
    out: Path,
    registry: Registry,
    options: PredictOptions = PredictOptions(),
    report: ReportImage = lambda what, image, done, total: None,
    say: Callable[[str], None] = lambda sentence: None,
) -> list[Path]:
    """Label maps of a NIfTI volume, of a folder of them, or of a DICOM series, each on its own grid; the files written.

    Beside a label map lies what was done, as JSON of the same name, or in a folder of several as prediction.json. `say` is
    told what is noteworthy and what is doubtful about an image. Every image is read and checked before the first is
    segmented: ConfigError or DataError leave nothing behind, nor do they change what is there. RunError, as of a full disk,
    leaves nothing that was not there before, so that the same command goes well once there is room.
    """
    trained = open_run(run, registry)
    inputs = find_inputs(images, options.series)
    several = len(inputs) > 1 or (images.is_dir() and inputs[0].series is None)
    outputs, card_path = _outputs(inputs, images, out, several, options.maps)
    written = [*(path for each in outputs for path in (each.labels, *each.maps.values())), card_path]
    if options.dicom_seg is not None:
        _refuse_no_series(inputs, options.dicom_seg)
        written.append(options.dicom_seg)
    _refuse_to_overwrite(written, [file for given in inputs for file in given.files], options.overwrite)
    loaded = load_run(trained, registry, options.device, options.select)
    if "translation" in options.maps:
        require_translator(trained, loaded)
    found, kept = _checked(inputs, trained.domain, options.strict, report, say)
    facts = []
    with _all_or_nothing(written):
        for done, (image, places) in enumerate(zip(found, outputs, strict=True)):
            report("predict", image.input.name, done, len(inputs))
            volume = kept or image.input.read()[0]
            labels = _write(volume, places, trained.domain, loaded)
            names = {"labels": places.labels.name, **{what: path.name for what, path in places.maps.items()}}
            if options.dicom_seg is not None:
                digest = trained.weights_digest(loaded.selection)["sha256"]
                _write_dicom_seg(options.dicom_seg, labels, image.input, trained, digest)
                names["dicom-seg"] = options.dicom_seg.name
            facts.append({"outputs": names, "organs_ml": organ_volumes(labels, trained.domain.task.organs, volume)})
        text = json.dumps(card(trained, loaded, found, facts), indent=2, ensure_ascii=False)
        write_text(card_path, text + "\n")
    return written


@contextmanager
def _all_or_nothing(paths: Sequence[Path]) -> Iterator[None]:
    """Remove files that were not there before if a RunError ends the block."""
    new = [path for path in paths if not path.exists()]
    try:
        yield
    except RunError:
        for path in new:
            path.unlink(missing_ok=True)
        raise


def _write(volume: Volume, places: Outputs, domain: Domain, loaded: LoadedRun) -> np.ndarray:
    """Labels [X, Y, Z] uint8 of one image, written with the maps that are asked for."""
    answer = segment(volume, domain, loaded)
    write_labels(places.labels, answer.labels, volume.affine, volume.header)
    if path := places.maps.get("probabilities"):
        # One class after another, so that only one of them is in memory.
        write_maps(path, answer.probabilities(), len(answer.slices), volume.header)
    if path := places.maps.get("entropy"):
        write_maps(path, [answer.entropy()], 1, volume.header)
    if path := places.maps.get("translation"):
        write_maps(path, [translate(volume, domain, loaded)], 1, volume.header)
    return answer.labels


def _refuse_no_series(inputs: list[Input], out: Path) -> None:
    """An error if there is no DICOM series for a segmentation to lie beside."""
    (given, *_) = inputs
    if given.series is None:
        raise ConfigError(
            f"--dicom-seg needs a DICOM series, to which its frames refer, and {given.name} is {given.kind}: leave it out."
        )
    if out.is_dir():
        raise ConfigError(f"{out} is a folder: give --dicom-seg the name of a file, as in {out / 'seg.dcm'}.")
    require_references(given.series)


def _write_dicom_seg(path: Path, labels: np.ndarray, given: Input, run: TrainedRun, digest: str) -> None:
    from attent_kit.report.colours import organ_colour

    assert given.series is not None
    organs = run.domain.task.organs
    algorithm = Algorithm(run.component.name, f"{run.component.version}, weights {digest[:16]}")
    colours = [organ_colour(n) for n in range(len(organs))]
    write_segmentation(path, labels, organs, given.series, algorithm, colours)


def _checked(
    inputs: list[Input], domain: Domain, strict: bool, report: ReportImage, say: Callable[[str], None]
) -> tuple[list[Image], Volume | None]:
    """What every image is, each read once; and the volume itself where there is only one."""
    found = []
    for done, given in enumerate(inputs):
        report("read", given.name, done, len(inputs))
        volume, image = examine(given, domain)
        found.append(image)
    doubts = [f"{image.input.name}: {doubt}" for image in found for doubt in image.doubts]
    if strict and doubts:
        more = [f"and {len(doubts) - DOUBTS_SHOWN} more"] if len(doubts) > DOUBTS_SHOWN else []
        raise DataError(
            "\n  ".join(["--strict lets no doubt pass, and there are some:", *doubts[:DOUBTS_SHOWN], *more])
            + "\nMend the image or choose another run, or leave out --strict."
        )
    for image in found:
        for kind, sentences in (("Note", image.notes), ("Warning", image.doubts)):
            for sentence in sentences:
                say(f"{kind}: {image.input.name}: {sentence}")
    return found, volume if len(inputs) == 1 else None


def _outputs(
    inputs: list[Input], place: Path, out: Path, several: bool, maps: Sequence[str]
) -> tuple[list[Outputs], Path]:
    """Where everything is written: the answers to each image, and the card."""
    if several and not out.is_dir() and (out.exists() or out.name.lower().endswith(NIFTI)):
        raise ConfigError(
            f"{out} is the name of a file, but {place} holds {len(inputs)} images: name a folder to write to."
        )
    if not several and not out.is_dir() and not out.name.lower().endswith(NIFTI):
        raise ConfigError(f"{out}: write a name that ends in .nii.gz, or an existing folder.")
    outputs = []
    for given in inputs:
        name = given.name if given.name.lower().endswith(NIFTI) and given.series is None else f"{given.stem}.nii.gz"
        labels = out / name if several or out.is_dir() else out
        stem = without_ending(labels.name)
        outputs.append(Outputs(labels, {what: labels.with_name(f"{stem}_{what}.nii.gz") for what in maps}))
    if several:
        return outputs, out / "prediction.json"
    return outputs, outputs[0].labels.with_name(f"{without_ending(outputs[0].labels.name)}.json")


def _refuse_to_overwrite(paths: list[Path], inputs: list[Path], overwrite: bool) -> None:
    """ConfigError if two outputs share a file, if one is an input, or if one exists and is not to be replaced."""
    taken = {path.resolve() for path in inputs}
    for n, path in enumerate(paths):
        if path.resolve() in taken:
            raise ConfigError(f"{path} is an input: name another place to write to.")
        if path in paths[:n]:
            raise ConfigError(f"{path} would be written twice, for two of the images: rename one of them.")
        if path.exists() and not overwrite:
            raise ConfigError(f"{path} exists already: name another place, or type --overwrite.")
