"""The picture by which a person checks a prepared file: the right cases and slices, sides and colours where they belong."""

import warnings

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread

from attent_kit.data.prepare import preview
from attent_kit.data.prepare.preview import preview_of, slices_to_show
from attent_kit.data.prepared.file import Prepared
from attent_kit.report.preview import CaseRow, View, montage
from support.cases import contents, write_case
from support.commands import prepare_words, says

LIVER, SPLEEN = (0xE6, 0x9F, 0x00), (0x00, 0x9E, 0x73)
"""Colours of the first and the fourth organ."""


def near(picture, colour):
    """Rows and columns of the pixels of almost that colour, above the legend."""
    close = np.abs(picture[: -picture.shape[0] // 6, :, :3] * 255 - np.array(colour)).max(axis=2) < 12
    return np.nonzero(close)


def test_prepare_writes_a_picture_with_the_liver_on_the_left_of_the_spleen(attentkit, volumes, tmp_path):
    words = prepare_words(volumes / "ct", tmp_path / "ct.h5", "ct", "--preview", tmp_path / "ct.png")
    assert attentkit(*words).code == 0
    assert set(contents(tmp_path)) == {"ct.h5", "ct.toml", "ct.png"}
    picture = imread(tmp_path / "ct.png")
    (_, liver), (_, spleen) = near(picture, LIVER), near(picture, SPLEEN)
    assert liver.size > 100 and spleen.size > 100
    # By panels, from the right edge: the last is the coronal section.
    panel = picture.shape[1] / (2.7 + 2.0 * 4) * 2.0
    last = picture.shape[1] - panel
    assert liver[liver > last].mean() < spleen[spleen > last].mean()


def test_the_picture_is_the_same_twice(prepared, tmp_path):
    for name in ("a.png", "b.png"):
        preview_of(Prepared.open(prepared / "mr.h5"), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_slices_are_spread_over_those_with_an_organ_from_the_feet_up():
    labels = np.zeros((20, 2, 2), np.uint8)
    labels[4:12, 0, 0] = 1
    assert slices_to_show(labels, 20) == [5, 7, 9, 11]
    assert slices_to_show(None, 16) == slices_to_show(np.zeros((16, 2, 2), np.uint8), 16) == [2, 6, 10, 14]
    assert slices_to_show(None, 1) == [0] and slices_to_show(None, 3) == [0, 1, 2]


@pytest.fixture
def drawn(monkeypatch):
    """What `preview_of` has drawn: rows, organs, title, notes."""
    calls = []
    monkeypatch.setattr(preview, "montage", lambda *words: calls.append(words))
    return calls


def test_a_coronal_section_has_the_head_on_top_and_the_patients_right_on_the_left(attentkit, tmp_path, drawn):
    write_case(tmp_path, "a")
    path = tmp_path / "labels" / "a.nii.gz"
    labels = np.zeros((32, 32, 4), np.uint8)
    labels[20:, 10, 3] = 1  # high x is right and high z is up in RAS
    nib.save(nib.Nifti1Image(labels, nib.load(path).affine), path)
    words = ["prepare", tmp_path, "--modality", "ct", "--size", 32, "-o", tmp_path / "x.h5"]
    assert attentkit(*words, "--preview", tmp_path / "x.png").code == 0
    (rows, organs, title, _, file), *_ = drawn
    *axial, coronal = rows[0].views
    assert organs[0] == "liver" and "R is the patient's right" in title and file == tmp_path / "x.png"
    assert coronal.labels.shape == (4, 32) and coronal.labels[0].tolist() == [1] * 12 + [0] * 20
    slices = Prepared.open(tmp_path / "x.h5").slices("a")[:, 0]
    assert np.array_equal(coronal.image, slices[::-1, 31 - 10])  # high y is in front, and the front is row 0
    assert not coronal.labels[1:].any() and (coronal.height, coronal.width) == (4 * 5.0, 32 * 2.0)
    assert [view.caption for view in axial] == ["slice 4 of 4"] and axial[0].width == axial[0].height == 64.0


def test_cases_with_doubts_are_shown_before_others(attentkit, volumes, tmp_path, drawn):
    folder = tmp_path / "ct"
    for n in range(12):
        write_case(folder, f"c{n:02}", seed=n)
    path = folder / "labels" / "c05.nii.gz"
    labels = np.asarray(nib.load(path).dataobj)[::-1]
    nib.save(nib.Nifti1Image(labels, nib.load(path).affine), path)
    words = [
        "prepare",
        folder,
        "--modality",
        "ct",
        "--size",
        8,
        "-o",
        tmp_path / "x.h5",
        "--preview",
        tmp_path / "x.png",
    ]
    assert attentkit(*words).code == 0
    rows = drawn[0][0]
    assert len(rows) == preview.CASES == 6 and "c05" in [row.name for row in rows]
    doubts = {row.name: row.doubts for row in rows}
    assert any("lies on the left" in doubt for doubt in doubts["c05"])
    assert not any(doubts[name] for name in doubts if name != "c05")
    # 10 x 8 x 3, 6 x 6 x 2 twice and 5 x 6 x 3 voxels of 20 cubic mm
    assert "liver 5 ml, right kidney 1 ml, left kidney 1 ml, spleen 2 ml" in rows[0].facts


def test_neighbours_as_channels_and_cases_without_labels_are_drawn(attentkit, volumes, tmp_path):
    words = ["prepare", volumes / "mr" / "images", "--modality", "mr", "--size", 32, "--channels", 3]
    words.append("--allow-unlabelled")
    outcome = attentkit(*words, "-o", tmp_path / "x.h5", "--preview", tmp_path / "x.png")
    assert outcome.code == 0
    assert near(imread(tmp_path / "x.png"), LIVER)[0].size == 0


def test_names_with_dollars_or_in_other_scripts_and_long_sentences_are_drawn(tmp_path):
    view = View("slice 1", np.zeros((4, 4)), np.eye(4, dtype=np.uint8), 4.0, 4.0)
    rows = [CaseRow(name, ("fact $_{",) * 30, ("doubt " * 60,), (view,)) for name in ("$a_{", "腹部" * 30)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        montage(rows, ["$liver_{", "spleen"], "title $_{", ["note $_{ " * 40], tmp_path / "x.png")
    assert imread(tmp_path / "x.png").shape[0] > 500


@pytest.mark.parametrize("name", ["x.jpg", "ct.h5", "ct.toml", "folder.png"])
def test_a_preview_that_is_no_picture_is_refused_before_anything_is_done(attentkit, volumes, tmp_path, name):
    (tmp_path / "folder.png").mkdir()
    words = prepare_words(volumes / "ct", tmp_path / "ct.h5", "ct", "--preview", tmp_path / name)
    assert says(attentkit(*words), 2, f"{tmp_path / name}: ... .png")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_a_picture_of_the_data_set_is_never_drawn_over_and_an_earlier_preview_is(attentkit, volumes, tmp_path):
    (tmp_path / "slice1.png").write_bytes(b"\x89PNG\r\n\x1a\n and a patient")
    words = prepare_words(volumes / "ct", tmp_path / "ct.h5", "ct", "--preview")
    outcome = attentkit(*words, tmp_path / "slice1.png")
    assert says(outcome, 2, "slice1.png exists already ... another --preview")
    assert set(contents(tmp_path)) == {"slice1.png"}
    assert attentkit(*words, tmp_path / "ct.png").code == attentkit(*words, tmp_path / "ct.png").code == 0
