"""The phantom as a folder of NIfTI pairs, written whole or not at all."""

import gzip
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import nibabel as nib
import numpy as np
import tomli_w

from attent_kit.data.phantom.case import SIZES, PhantomCase, phantom_case
from attent_kit.data.phantom.patient import MODALITIES
from attent_kit.data.phantom.tissues import ORGANS
from attent_kit.data.workers import ReportDone
from attent_kit.errors import ConfigError, DataError, RunError, did_you_mean

KIND = "attent-kit phantom"


def write_phantom(out: Path, size: str, seed: int = 0, report: ReportDone | None = None) -> None:
    """Write OUT/{ct,mr}/{images,labels}/*.nii.gz and OUT/phantom.toml; the same seed gives the same bytes.

    It is written beside OUT and renamed, so that OUT is the old folder or the new one and nothing between. ConfigError
    for an unknown size, DataError where OUT holds something else or cannot be written.
    """
    require_size(size)
    whole_folder(Path(out), refuse_anything_else, lambda folder: write_cases(folder, size, seed, report))


def whole_folder(out: Path, refuse: Callable[[Path], None], write: Callable[[Path], None]) -> None:
    """Call `refuse` with `out` and `write` with an empty folder beside it, then rename that to `out`."""
    partial = out.absolute().parent / f".{out.name}.{uuid4().hex[:8]}.partial"
    try:
        refuse(out)
        partial.mkdir(parents=True)
        write(partial)
        replace(out, partial)
    except OSError as error:
        raise RunError(
            f"{out}: the phantom could not be written ({error.strerror or error}), and nothing was left behind. "
            "Free some space or name another folder: `attentkit phantom FOLDER`."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def require_size(size: str) -> None:
    """ConfigError with the nearest name if no phantom has that size."""
    if size not in SIZES:
        raise ConfigError(f"No phantom size is called '{size}'.{did_you_mean(size, SIZES)} Sizes: {', '.join(SIZES)}.")


def every_case(
    size: str, seed: int, report: ReportDone | None, modalities: tuple[str, ...] = MODALITIES
) -> Iterator[tuple[str, int, str, PhantomCase]]:
    """Modality, patient from 1, name and volume of each case of that size; `report` hears of it once it is used."""
    grid = SIZES[size]
    names = [(m, n, f"{m}_{n:02d}") for m in modalities for n in range(1, getattr(grid, f"{m}_patients") + 1)]
    for done, (modality, patient, name) in enumerate(names, start=1):
        yield modality, patient, name, phantom_case(modality, patient, grid, seed)
        if report:
            report(name, done, len(names))


def write_cases(folder: Path, size: str, seed: int, report: ReportDone | None) -> None:
    """Every case of that size into an empty folder."""
    cases = {}
    for modality, _, name, case in every_case(size, seed, report):
        for kind, array in (("images", case.image), ("labels", case.labels)):
            path = folder / case_path(modality, kind, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(compressed(array, case))
        cases[name] = case.facts
    facts = {"kind": KIND, "size": size, "seed": seed, "organs": list(ORGANS), "cases": cases}
    (folder / "phantom.toml").write_text(tomli_w.dumps(facts), encoding="utf-8")


def case_path(modality: str, kind: str, name: str) -> Path:
    """Where a volume of `kind` images or labels lies in the folder."""
    return Path(modality, kind, f"{name}.nii.gz")


def compressed(array: np.ndarray, case: PhantomCase) -> bytes:
    """The bytes of a .nii.gz: no time stamp and no file name in it, so that equal volumes are equal files."""
    volume = nib.Nifti1Image(array, case.affine)
    volume.header.set_xyzt_units("mm")
    volume.set_sform(case.affine, code=1)
    volume.set_qform(case.affine, code=1)
    return gzip.compress(volume.to_bytes(), 6, mtime=0)


def in_phantom(folder: Path) -> bool:
    """Whether a folder is, or lies in, one that a phantom was written to, in whichever layout."""
    for place in (folder.absolute(), *folder.absolute().parents):
        try:
            if tomllib.loads((place / "phantom.toml").read_text(encoding="utf-8")).get("kind") == KIND:
                return True
        except (OSError, ValueError):
            continue
    return False


def refuse_anything_else(out: Path) -> None:
    """DataError unless `out` is new, an empty folder, or a phantom with nothing beside the files that it wrote."""
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise DataError(f"{out} is not a folder. Name a new folder: `attentkit phantom FOLDER`.")
    try:
        facts = tomllib.loads((out / "phantom.toml").read_text(encoding="utf-8"))
        cases = facts["cases"] if facts.get("kind") == KIND else {}
        ours = {
            case_path(case["modality"], kind, name) for name, case in cases.items() for kind in ("images", "labels")
        }
        ours.add(Path("phantom.toml"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        ours = set()
    present = {path.relative_to(out) for path in out.rglob("*") if not path.is_dir()}
    if strange := sorted(present - ours):
        raise DataError(
            f"{out} holds '{strange[0]}', which is not part of a phantom and would be lost. "
            f"Name another folder: `attentkit phantom {out}-phantom`."
        )


def replace(out: Path, new: Path) -> None:
    """Rename `new` to `out`; what `out` was is kept aside until that has worked."""
    if not out.exists():
        new.rename(out)
        return
    old = new.with_suffix(".old")
    out.rename(old)
    try:
        new.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
