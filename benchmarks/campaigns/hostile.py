"""Damaged and hostile files of every kind that is read, one after another, at the function that reads it.

Each answers, or says in one sentence what is wrong; whatever carries a digest answers as before or not at all. `make fuzz` tries
the same through the whole of `prepare`.
"""

import gzip
import io
import random
import resource
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from attent_kit.config import read_toml
from attent_kit.data.prepared.file import Prepared
from attent_kit.data.scans.dicom import read_series
from attent_kit.data.scans.pictures import read_picture
from attent_kit.data.scans.volumes import read_labels, read_volume
from attent_kit.data.sets.table import read_pairs
from attent_kit.engine.apply.pack import read_pack
from attent_kit.engine.apply.packing import pack_run
from attent_kit.engine.run import checkpoint
from attent_kit.engine.run.digest import digest
from attent_kit.errors import AttentKitError
from attent_kit.files import read_json
from attent_kit.plugins import load
from attent_kit.report.scores import read_scores
from attent_kit.report.selection import read_selection
from attentkit_builtin.layouts.sifa_npz import read_arrays
from campaigns.artefacts import DAMAGES, RUN, spoilt
from campaigns.small import Small
from campaigns.trying import CRASHED, Forked, Lost
from support.dicom_slices import multi_frame, save, values

MEMORY = 8 * 2**30
"""Bytes of address space that this process may have meanwhile."""
SECONDS = 20.0
"""After which nobody waits for an answer any more."""
HURTS = (*(damage for damage in DAMAGES if damage != "missing"), "extreme", "extreme", "number", "number")
"""The last are what nobody but an attacker does."""
Reader = Callable[[Path], Any]


def hostile(small: Small) -> Callable[[random.Random, int], str]:
    """A try of this campaign."""
    readers = _readers(small)
    sound = {kind: read(path) for kind, (path, read, _) in readers.items()}
    kinds = list(readers)
    folder = small.fresh("hostile")
    folder.mkdir(parents=True)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    warnings.simplefilter("ignore")

    def one(chance: random.Random, number: int) -> str:
        kind = kinds[number % len(kinds)]
        original, read, signed = readers[kind]
        path = folder / kind.replace(" ", "-") / original.name
        path.parent.mkdir(exist_ok=True)
        damage = chance.choice(HURTS)
        content = original.read_bytes()
        inside = chance.random() < 0.5 and (made := _spoilt_inside(content, damage, chance)) is not None
        path.write_bytes(made if inside and made is not None else spoilt(content, damage, chance))
        damage += " inside" if inside else ""
        before = {*folder.rglob("*")}
        try:
            found = _apart(read, path, damage, kind) if kind == "HDF5" else read(path)
        except (AttentKitError, OSError) as error:
            if "\n" in str(error).strip() and len(str(error)) > 2000:
                raise Lost(f"{damage}: a sentence of {len(str(error))} letters", kind) from None
            found = None
        except Lost:
            path.unlink()
            raise
        except Exception as error:
            path.rename(folder / f"lost-{kind.replace(' ', '-')}-{number}{path.suffix}")
            raise Lost(f"{damage}: {type(error).__name__}: {error}", kind) from error
        if found is not None and signed and found != sound[kind]:
            raise Lost(f"{damage}: read as something else", kind)
        if {*folder.rglob("*")} - before:
            raise Lost(f"{damage}: a file was written", kind)
        path.unlink(missing_ok=True)
        return kind

    return one


def _spoilt_inside(content: bytes, damage: str, chance: random.Random) -> bytes | None:
    """A file whose packed contents are damaged and packed again, so that no checksum of the container tells; None if none are."""
    if content.startswith(b"\x1f\x8b"):
        return gzip.compress(spoilt(gzip.decompress(content), damage, chance), compresslevel=1)
    if not content.startswith(b"PK"):
        return None
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        members = {entry.filename: packed.read(entry) for entry in packed.infolist()}
    name = chance.choice(list(members))
    members[name] = spoilt(members[name], damage, chance)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as packed:
        for each, inner in members.items():
            packed.writestr(each, inner)
    return made.getvalue()


def _apart(read: Reader, path: Path, damage: str, kind: str) -> None:
    """Read in another process, since a library written in C may never return."""

    def work() -> int:
        try:
            read(path)
        except (AttentKitError, OSError):
            return 3
        return 0

    ended = Forked(work).wait(SECONDS)
    if ended.code < 0:
        raise Lost(f"{damage}: no answer after {SECONDS:.0f} s", kind)
    if ended.code == CRASHED:
        raise Lost(f"{damage}: {ended.err[-500:]}", kind)


def _readers(small: Small) -> dict[str, tuple[Path, Reader, bool]]:
    """A sound file of each kind, who reads it, and whether its answer must be the same or none."""
    run, base = small.finished() / RUN, small.work / "sound"
    base.mkdir(exist_ok=True)
    (base / "frames").mkdir(exist_ok=True)
    save(multi_frame(values(3), [2, 0, 1]), base / "frames" / "frames.dcm")
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(base / "a.png")
    np.savez(base / "a.npz", np.zeros((2, 8, 8), np.float32), np.zeros((2, 8, 8), np.uint8))
    (base / "a.csv").write_text("image,label\na.nii.gz,b.nii.gz\nc.nii.gz,d.nii.gz\n")
    plain = base / "a.nii"
    plain.write_bytes(gzip.decompress((small.volumes / "ct" / "images" / "ct_1.nii.gz").read_bytes()))
    pack = base / "run.zip"
    if not pack.exists():
        pack_run(run, pack, load().registry)
    return {
        "NIfTI": (plain, _volume, False),
        "NIfTI, zipped": (small.volumes / "ct" / "images" / "ct_1.nii.gz", _volume, False),
        "label map": (small.volumes / "ct" / "labels" / "ct_1.nii.gz", lambda p: read_labels(p) is not None, False),
        "DICOM": (base / "frames" / "frames.dcm", lambda p: read_series(p.parent)[0].array.shape, False),
        "PNG": (base / "a.png", lambda p: read_picture(p).shape, False),
        "npz": (base / "a.npz", lambda p: read_arrays(p)[0].shape, False),
        "HDF5": (small.data / "ct.h5", _prepared, False),
        "TOML": (run / "config.toml", lambda p: bool(read_toml(p)), False),
        "table of pairs": (base / "a.csv", lambda p: len(read_pairs(p)), False),
        "scores": (run / "scores.csv", lambda p: len(read_scores(p)), False),
        "selection": (run / "selection.csv", lambda p: len(read_selection(p)), False),
        "JSON": (run / "domain.json", lambda p: bool(read_json(p)), False),
        "checkpoint": (run / "checkpoint.ckpt", lambda p: checkpoint.read(p)["digest"], True),
        "safetensors": (run / "segmentor.safetensors", lambda p: digest(checkpoint.read_weights(p)), True),
        "pack": (pack, lambda p: digest(dict(read_pack(p).manifest)), True),
    }


def _volume(path: Path) -> tuple[int, ...]:
    array = read_volume(path).array
    assert np.isfinite(array).all(), "values that are no numbers"
    return array.shape


def _prepared(path: Path) -> bool:
    found = Prepared.open(path)
    try:
        for case in found.ids("train"):
            found.slices(case)
            found.label_slices(case)
    finally:
        found.close()
    return True
