"""The phantom as a folder, written whole or not at all: its own pairs of NIfTI files, or a data set as people download it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import tomli_w

from attent_kit.data.phantom.chaos import write_chaos
from attent_kit.data.phantom.nifti import case_path, write_btcv, write_msd, write_nifti, write_nnunet
from attent_kit.data.phantom.options import PhantomOptions
from attent_kit.data.phantom.tissues import ORGANS
from attent_kit.data.phantom.volumes import CaseFacts
from attent_kit.data.scans.dicom_file import require_pydicom
from attent_kit.data.workers import ReportDone
from attent_kit.errors import DataError, RunError
from attent_kit.reading import text_of, toml_in

KIND = "attent-kit phantom"
DEFAULTS = PhantomOptions()
_WRITERS: dict[str, Callable[[Path, PhantomOptions, ReportDone | None], CaseFacts]] = {
    "nifti": write_nifti,
    "chaos": write_chaos,
    "btcv": write_btcv,
    "nnunet": write_nnunet,
    "msd": write_msd,
}


class WrittenPhantom(NamedTuple):
    """What was written where."""

    folder: Path
    options: PhantomOptions
    cases: CaseFacts
    """What each case is, by the name that it has in the layout: modality, split, spacing, organ volumes, protocol."""

    def prepare_words(self) -> list[str]:
        """What `attentkit prepare` is told about one domain of it."""
        home, split = self.folder, ["--split", self.options.split]
        words: dict[str, list[str | Path]] = {
            "nifti": [home / "ct" / "images", "--labels", home / "ct" / "labels", "--modality", "ct", "--out", "ct.h5"],
            "chaos": [home / "Train_Sets", "--part", "t2spir", *split, "--out", "mr.h5"],
            "btcv": [home / "RawData", *split, "--out", "ct.h5"],
            "nnunet": [home / "Dataset001_PhantomCT", "--out", "ct.h5"],
            "msd": [home / "Task01_PhantomCT", "--out", "ct.h5"],
        }
        return [str(word) for word in words[self.options.layout]]


def write_phantom(
    out: Path | str, options: PhantomOptions = DEFAULTS, report: ReportDone | None = None
) -> WrittenPhantom:
    """`attentkit phantom`: the volumes and phantom.toml, which says of each case what it is; the same seed gives the same bytes.

    It is written beside OUT and renamed, so that OUT is the old folder or the new one and nothing in between. DataError unless
    OUT is new or empty, or, for the layout nifti, a phantom; RunError where it cannot be written.
    """
    out, cases = Path(out), CaseFacts()
    if options.layout == "chaos":
        require_pydicom()

    def write(folder: Path) -> None:
        cases.update(_WRITERS[options.layout](folder, options, report))
        facts = {"kind": KIND, "size": options.size, "seed": options.seed, "layout": options.layout}
        text = tomli_w.dumps(facts | {"organs": list(ORGANS), "cases": cases})
        (folder / "phantom.toml").write_text(text, encoding="utf-8")

    _whole_folder(out, _refuse_anything_else if options.layout == "nifti" else _refuse_unless_empty, write)
    return WrittenPhantom(out, options, cases)


def in_phantom(folder: Path) -> bool:
    """Whether a folder is, or lies in, one that a phantom was written to, in whichever layout.

    DataError if a phantom.toml there is torn: what was made from the phantom must say so.
    """
    return any(_facts_of(place).get("kind") == KIND for place in (folder.absolute(), *folder.absolute().parents))


def _facts_of(folder: Path) -> dict[str, Any]:
    """What the phantom.toml of a folder says; nothing where there is none. DataError if it is torn."""
    try:
        return toml_in(text_of(folder / "phantom.toml"))
    except OSError:
        return {}
    except ValueError as error:
        raise DataError(
            f"{folder / 'phantom.toml'} is damaged ({str(error).splitlines()[0]}), so nothing says what lies there: remove the "
            "file, or write the phantom to a new folder."
        ) from error


def _whole_folder(out: Path, refuse: Callable[[Path], None], write: Callable[[Path], None]) -> None:
    """Call `refuse` with `out` and `write` with an empty folder beside it, then rename that to `out`."""
    partial = out.absolute().parent / f".{out.name}.{uuid4().hex[:8]}.partial"
    try:
        refuse(out)
        partial.mkdir(parents=True)
        write(partial)
        _replace(out, partial)
    except OSError as error:
        raise RunError(
            f"{out}: the phantom could not be written ({error.strerror or error}), and nothing was left behind. "
            "Free some space or name another folder: `attentkit phantom FOLDER`."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _refuse_anything_else(out: Path) -> None:
    """DataError unless `out` is new, an empty folder, or a phantom with nothing beside the files that it wrote."""
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise DataError(f"{out} is not a folder. Name a new folder: `attentkit phantom FOLDER`.")
    try:
        facts = _facts_of(out)
        cases = facts["cases"] if facts.get("kind") == KIND else {}
        ours = {
            case_path(case["modality"], kind, name) for name, case in cases.items() for kind in ("images", "labels")
        }
        ours.add(Path("phantom.toml"))
    except (KeyError, TypeError, AttributeError):
        ours = set()
    present = {path.relative_to(out) for path in out.rglob("*") if not path.is_dir()}
    if strange := sorted(present - ours):
        raise DataError(
            f"{out} holds '{strange[0]}', which is not part of a phantom and would be lost. "
            f"Name another folder: `attentkit phantom {out}-phantom`."
        )


def _refuse_unless_empty(out: Path) -> None:
    """DataError unless `out` is new or an empty folder: what is in it may be real data."""
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir() or any(out.iterdir()):
        raise DataError(f"{out} exists already. Name a new folder: `attentkit phantom FOLDER --layout ...`.")


def _replace(out: Path, new: Path) -> None:
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
