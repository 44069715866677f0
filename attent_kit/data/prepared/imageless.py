"""A domain whose images are not read: what a method with `uses_source_images = False` trains on."""

import copy
from collections.abc import Sequence

import numpy as np

from attent_kit.data.prepared.file import Prepared


class _Imageless(Prepared):
    """Labels and facts of a domain; where an image is asked for, NaN."""

    def images(self, case_ids: Sequence[str], as_source: bool = False) -> np.ndarray:
        return np.full((len(self.index(case_ids, as_source)), self.channels, self.size, self.size), np.nan, np.float16)

    def stacks(self, case_ids: Sequence[str], as_source: bool = False) -> tuple[np.ndarray, np.ndarray]:
        rows = np.zeros((len(self.index(case_ids, as_source)), self.channels), np.int64)
        return np.full((1, self.size, self.size), np.nan, np.float16), rows

    def image_row(self, case: str, z: int) -> np.ndarray:
        return np.full((self.channels, self.size, self.size), np.nan, np.float16)


def without_images(prepared: Prepared) -> Prepared:
    """The same domain with NaN for every image; nothing of an image is read from the file."""
    imageless = copy.copy(prepared)
    imageless.__class__ = _Imageless
    return imageless
