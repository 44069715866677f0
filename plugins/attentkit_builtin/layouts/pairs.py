"""Plain pairs of NIfTI files, matched by name: for data sets without a name of their own."""

import os
import re
from pathlib import Path

from attent_kit.errors import DataError
from attent_kit.layouts import Entry, Layout, Scan, is_label
from attentkit_builtin.layouts.amos import Amos
from attentkit_builtin.layouts.brats import Brats
from attentkit_builtin.layouts.btcv import BTCV
from attentkit_builtin.layouts.flare import Flare
from attentkit_builtin.layouts.folders import NIFTI, checked, chosen, folders, names, paired, scan_of
from attentkit_builtin.layouts.mmwhs import MMWHS
from attentkit_builtin.layouts.msd import MSD
from attentkit_builtin.layouts.nnunet import NnUNet

_LISTS = (".csv", ".tsv")
_IMAGES = re.compile(r"^(images?|imgs?|volumes?|vols?|scans?)(tr)?$", re.IGNORECASE)
_LABELS = re.compile(
    r"^((labels?|lbls?|masks?|gt|rois?)(tr)?|segs?|segmentations?|(ground_?)?truths?|annotations?)$", re.IGNORECASE
)
_UNLABELLED = ", or type --allow-unlabelled if they are for training on the target side only"


class Pairs(Layout):
    """NIfTI images and label maps matched by file name: a folder with images and labels, one folder, a file or a CSV list."""

    def __init__(
        self, path: Path, part: str | None = None, labels: Path | None = None, allow_unlabelled: bool = False
    ) -> None:
        """`labels` is the folder or file of the label maps where it does not lie beside the images."""
        super().__init__(path, part)
        chosen(part, (), self.path)
        self.labels = None if labels is None else Path(labels)
        self.allow_unlabelled = allow_unlabelled

    @classmethod
    def recognises(cls, path: Path) -> bool:
        path = Path(path)
        if os.path.isfile(path):
            return path.suffix.lower() in _LISTS or bool(NIFTI.search(path.name))
        if any(layout.recognises(path) for layout in (NnUNet, MSD, BTCV, Amos, Flare, MMWHS, Brats)):
            return False
        return bool(names(path, NIFTI)) or any(names(inner, NIFTI) for inner in _called(path, _IMAGES))

    def entries(self) -> list[Entry]:
        images, labels = self._places()
        pairs = paired(self, images, labels, self.allow_unlabelled, _UNLABELLED)
        found = (
            Entry(p.case, (p.image,), (p.labels,) if p.labels else (), organs=p.organs, patient=p.patient)
            for p in pairs
        )
        return checked(found, self.path)

    def read(self, entry: Entry) -> Scan:
        return scan_of(entry)

    def _places(self) -> tuple[Path, Path | None]:
        """Where the images and the label maps lie."""
        if not os.path.exists(self.path):
            raise DataError(f"{self.path} does not exist: check the spelling of the path.")
        if os.path.isfile(self.path):
            return self.path, self.labels
        images = _one_of(_called(self.path, _IMAGES), "images")
        if self.labels is not None:
            return images or self.path, self.labels
        called = _called(self.path, _LABELS)
        # A folder of label maps that none can be read from is not a reason to go without: finding the pairs tells why.
        labels = _one_of(called, "label maps") or (called[0] if called and not self.allow_unlabelled else None)
        if images is not None or labels is not None:
            return images or self.path, labels
        mixed = names(self.path, NIFTI)
        return self.path, self.path if any(map(is_label, mixed)) and not all(map(is_label, mixed)) else None


def _one_of(called: list[Path], kind: str) -> Path | None:
    """The one folder that holds volumes, if there is any."""
    inner = [folder for folder in called if names(folder, NIFTI)]
    if len(inner) > 1:
        one, other = inner[:2]
        raise DataError(f"{one} and {other} both hold {kind}: name the folder of images, and that of --labels.")
    return inner[0] if inner else None


def _called(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    return [inner for inner in folders(folder) if pattern.match(inner.name)]
