"""`attentkit check`: Hounsfield units that are none."""

import numpy as np
import pytest

from support.abdomens import abdomen, checked, only, write
from support.messages import quotes


def greys(attentkit, folder, image, modality="ct", labelled=True):
    body = abdomen()
    write(folder, "a", body._replace(image=image, labels=body.labels if labelled else None))
    return checked(attentkit, folder, *(["--modality", modality] if modality else []))


HU = abdomen().image.astype(np.float32)


@pytest.mark.parametrize(
    ("image", "severity", "words"),
    [
        ((np.clip(HU, -160, 240) + 160) * 255 / 400, "warning", "0 to 255 ... 8 bits"),
        (np.clip(HU, -160, 240) / 400 + 0.4, "warning", "0 to 1 ... scaling"),
        ((HU - HU.mean()) / HU.std(), "warning", "standard deviation 1 ... z-scores"),
        (HU - HU.min() + 24, "error", "RescaleIntercept"),
        (HU * 4 - 4 * HU.min(), "warning", "below 0 ... HU"),
        (HU - 1024, "error", "-300 and 300"),
        (HU - 220, "error", "0 to 100"),
        (HU + 180, "warning", "-820 ... -1000"),
        (HU / 2, "warning", "-500 ... -1000"),
        (np.clip(HU, -50, 200), "warning", "cut off below -50"),
    ],
)
def test_a_ct_that_is_not_in_hounsfield_units(attentkit, tmp_path, image, severity, words):
    found = greys(attentkit, tmp_path, image, labelled=False)
    assert quotes(only(found, "grey values", severity, "a"), words)
    assert found.findings[0]["file"].endswith("images/a.nii.gz")


def test_a_ct_in_hounsfield_units_is_sound_even_with_padding(attentkit, tmp_path):
    assert greys(attentkit, tmp_path, HU).about("grey values") == []
    padded = HU.copy()
    padded[:4], padded[-4:] = -3024, -3024
    assert greys(attentkit, tmp_path, padded).about("grey values") == []


def test_a_window_that_holds_the_default_one_is_a_note(attentkit, tmp_path):
    found = greys(attentkit, tmp_path, np.clip(HU, -200, 300))
    assert found.serious == [] and "cut off below -200" in found.about("grey values")[0][2]


def test_organs_without_their_hounsfield_units_are_told(attentkit, tmp_path):
    image = HU.copy()
    image[abdomen().labels == 4] = 700
    assert "spleen 700 HU" in only(greys(attentkit, tmp_path, image), "grey values", "warning")
    organs = "--organs=liver=1,right kidney=2,left kidney=3,bone=4"
    assert checked(attentkit, tmp_path, "--modality", "ct", organs).about("grey values") == []


def test_a_ct_that_is_called_mr_or_nothing(attentkit, tmp_path):
    assert "CT" in only(greys(attentkit, tmp_path, HU, "mr"), "grey values", "warning")
    found = greys(attentkit, tmp_path, HU, None)
    assert found.serious == [] and "CT" in found.about("grey values")[0][2]


def test_slices_of_one_value_are_a_note(attentkit, tmp_path):
    image = HU.copy()
    image[..., :2] = -1000
    ((severity, _, evidence),) = greys(attentkit, tmp_path, image).about("grey values")
    assert severity == "note" and quotes(evidence, "2 of 27 slices ... feet: 1, 2")
