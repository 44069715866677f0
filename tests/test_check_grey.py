"""`attentkit check`: Hounsfield units that are none."""

import numpy as np
import pytest

from support.abdomens import abdomen, checked, only, write


def greys(attentkit, folder, image, modality="ct", labelled=True):
    body = abdomen()
    write(folder, "a", body._replace(image=image, labels=body.labels if labelled else None))
    return checked(attentkit, folder, *(["--modality", modality] if modality else []))


HU = abdomen().image.astype(np.float32)


@pytest.mark.parametrize(
    ("image", "severity", "words"),
    [
        ((np.clip(HU, -160, 240) + 160) * 255 / 400, "warning", "from 0 to 255, as after conversion to 8 bits"),
        (np.clip(HU, -160, 240) / 400 + 0.4, "warning", "as after scaling to -1 to 1 or 0 to 1"),
        ((HU - HU.mean()) / HU.std(), "warning", "standard deviation 1), as z-scores do"),
        (HU - HU.min() + 24, "error", "as stored values have before RescaleIntercept"),
        (HU * 4 - 4 * HU.min(), "warning", "no value is below 0, so this CT is perhaps not in HU"),
        (HU - 1024, "error", "lie between -300 and 300, where soft tissue is in HU"),
        (HU - 220, "error", "where 0 to 100 is usual"),
        (HU + 180, "warning", "the lowest value is -820, where air is -1000 in HU"),
        (HU / 2, "warning", "the lowest value is -500, where air is -1000 in HU"),
        (np.clip(HU, -50, 200), "warning", "the values were cut off below -50"),
    ],
)
def test_a_ct_that_is_not_in_hounsfield_units(attentkit, tmp_path, image, severity, words):
    found = greys(attentkit, tmp_path, image, labelled=False)
    assert words in only(found, "grey values", severity, "a")
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
    assert "do not have in HU: spleen 700 HU" in only(greys(attentkit, tmp_path, image), "grey values", "warning")
    organs = "--organs=liver=1,right kidney=2,left kidney=3,bone=4"
    assert checked(attentkit, tmp_path, "--modality", "ct", organs).about("grey values") == []


def test_a_ct_that_is_called_mr_or_nothing(attentkit, tmp_path):
    assert "this is perhaps a CT" in only(greys(attentkit, tmp_path, HU, "mr"), "grey values", "warning")
    found = greys(attentkit, tmp_path, HU, None)
    assert found.serious == [] and "this looks like a CT" in found.about("grey values")[0][2]


def test_slices_of_one_value_are_a_note(attentkit, tmp_path):
    image = HU.copy()
    image[..., :2] = -1000
    ((severity, _, evidence),) = greys(attentkit, tmp_path, image).about("grey values")
    assert severity == "note" and evidence == "2 of 27 slices hold one value only (counted from the feet: 1, 2)"
