"""Overlap of two masks: L. R. Dice, Measures of the amount of ecologic association between species, 1945."""

import numpy as np

from attent_kit.errors import DataError


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """2 |P and T| / (|P| + |T|) of two boolean masks of one shape: 1 identical, 0 disjoint or only one of them empty.

    NaN when both are empty: there is nothing to find and nothing was found, so the caller leaves it out of a mean and
    counts it. Raises `DataError` if the shapes differ and `TypeError` if an array is not boolean.
    """
    check_masks(prediction, truth)
    voxels = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return float(2 * np.count_nonzero(prediction & truth) / voxels) if voxels else float("nan")


def check_masks(prediction: np.ndarray, truth: np.ndarray) -> None:
    """Raises unless both are boolean (`TypeError`) and of one shape (`DataError`)."""
    check_same_grid(prediction, truth)
    for name, mask in (("prediction", prediction), ("truth", truth)):
        if mask.dtype != bool:
            raise TypeError(f"The {name} is {mask.dtype}, not bool. Choose an organ first: `labels == 1`.")


def check_same_grid(prediction: np.ndarray, truth: np.ndarray) -> None:
    """Raises `DataError` unless both have the same shape."""
    if prediction.shape != truth.shape:
        raise DataError(
            f"The prediction has shape {prediction.shape} and the truth {truth.shape}. "
            f"Resample the prediction to the grid of the truth, then score it."
        )
