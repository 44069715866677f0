"""A trained run as an object: the same answers as on the command line, with nothing on disk in between."""

import builtins
import json
import math
import os

import nibabel as nib
import numpy as np
import pytest

from attent_kit.engine.apply.model import open_model
from attent_kit.engine.apply.scoring import EvaluateOptions, evaluate, score
from attent_kit.errors import ConfigError, DataError, RunError
from support.cases import AFFINE, BOXES, contents
from support.stand_in import REGISTRY, SOFT, expected, greys, predict, save, stand_in_run, whole_run

TILTED = np.array([[0, -2.0, 0, 5], [1.6, 0, -3.0, 4], [1.2, 0, 4.0, 3], [0, 0, 0, 1]])


def model(folder):
    return open_model(folder, REGISTRY, "cpu")


def of(image):
    return np.asarray(image.dataobj)


@pytest.fixture
def image(tmp_path):
    return save(tmp_path / "in" / "image.nii.gz", greys(), TILTED)


@pytest.fixture
def run(tmp_path):
    return whole_run(tmp_path / "run", 12, slope=SOFT)


def test_an_open_run_says_what_it_is_without_its_weights(run):
    (run / "checkpoint.ckpt").write_bytes(b"junk")
    opened = model(run)
    assert (opened.organs, opened.method) == (("middle", "bright"), "translating")
    assert (opened.domain.name, opened.domain.size, opened.domain.intensity.high) == ("ct", 12, 200.0)
    assert [(c.kind, c.name, c.version) for c in opened.components] == [("alignments", "translating", "1.2")]
    with pytest.raises(RunError, match="checkpoint.ckpt is not a readable checkpoint"):
        opened.predict(greys(), AFFINE)


def in_memory(path):
    """The same image in every form that is taken."""
    opened = nib.load(path)
    array = np.asarray(opened.dataobj)
    return {
        "path": (path,), "string": (str(path),), "nibabel": (opened,), "array": (array, opened.affine),
        "integers": (array.astype(np.int64), opened.affine), "double": (array.astype(np.float64), opened.affine.tolist()),
        "nifti2": (nib.Nifti2Image(array, opened.affine),),
    }  # fmt: skip


@pytest.mark.parametrize("form", ["path", "string", "nibabel", "array", "integers", "double", "nifti2"])
def test_every_form_of_an_image_has_the_answer_that_the_command_writes(run, image, tmp_path, form):
    predict(run, image, tmp_path / "l.nii.gz", maps=["probabilities", "entropy", "translation"])
    before = contents(tmp_path)
    opened, given = model(run), in_memory(image)[form]
    answer = opened.predict(*given)
    found = {
        "l": answer.labels, "l_probabilities": answer.probabilities, "l_entropy": answer.entropy,
        "l_translation": opened.translate(*given),
    }  # fmt: skip
    for name, made in found.items():
        written = nib.load(tmp_path / f"{name}.nii.gz")
        assert np.array_equal(of(made), of(written)), name
        assert made.get_data_dtype() == written.get_data_dtype() and made.shape == written.shape
        assert np.allclose(made.affine, written.affine, atol=1e-6)
        assert int(made.header["sform_code"]) > 0
    assert np.array_equal(of(answer.labels), expected(of(nib.load(image))))
    assert answer.labels.get_data_dtype() == np.uint8
    card, written = answer.card, json.loads((tmp_path / "l.json").read_text())
    assert json.loads(json.dumps(card)).keys() == written.keys()
    assert card["images"][0]["organs_ml"] == written["images"][0]["organs_ml"]
    assert card["run"] == written["run"] and card["limits"] == written["limits"]
    assert contents(tmp_path) == before


def test_an_answer_written_by_nibabel_is_the_file_of_the_command(run, image, tmp_path):
    predict(run, image, tmp_path / "l.nii")
    nib.save(model(run).predict(image).labels, tmp_path / "m.nii")
    assert (tmp_path / "l.nii").read_bytes() == (tmp_path / "m.nii").read_bytes()


def test_nothing_is_written_anywhere(run, monkeypatch):
    opened = model(run)
    _ = opened.loaded
    really = builtins.open

    def only_for_reading(file, mode="r", *more, **named):
        assert not set(mode) & set("wax+"), file
        return really(file, mode, *more, **named)

    monkeypatch.setattr(builtins, "open", only_for_reading)
    monkeypatch.setattr(os, "open", lambda path, flags, *more, **named: pytest.fail(f"os.open of {path}"))
    answer = opened.predict(greys(), AFFINE)
    assert answer.entropy.shape == answer.labels.shape == opened.translate(greys(), AFFINE).shape
    assert score(answer.labels, answer.labels, organs="middle=1,bright=2")


def test_the_given_image_stays_as_it_was(run):
    array = greys()
    given = nib.Nifti1Image(array.copy(), AFFINE)
    header = given.header.copy()
    model(run).predict(given)
    assert np.array_equal(of(given), array) and given.header == header


def test_an_image_whose_affine_was_changed_in_place_lies_where_it_says(run):
    given = nib.Nifti1Image(greys(), AFFINE)
    given.affine[:3, 3] += 7
    assert np.allclose(model(run).predict(given).labels.affine, given.affine)


def test_doubts_are_those_that_the_command_warns_of(run, tmp_path):
    def unplaced(made):
        made.set_sform(None, code=0)
        made.set_qform(None, code=0)

    path, said = save(tmp_path / "in" / "image.nii.gz", greys(), np.eye(4), unplaced), []
    predict(run, path, tmp_path / "l.nii.gz", say=said.append)
    answer = model(run).predict(path)
    assert [f"Warning: image.nii.gz: {doubt}" for doubt in answer.doubts] == said
    assert len(answer.doubts) == 1 and "no qform, no sform" in answer.doubts[0]
    assert model(run).predict(greys(), AFFINE).doubts == ()
    with pytest.raises(DataError, match="no qform, no sform"):
        model(run).predict(nib.load(path), strict=True)


@pytest.mark.parametrize(
    "given, error, words",
    [
        ((greys(),), DataError, "give its affine"),
        ((greys(), np.zeros((4, 4))), DataError, "affine that places no volume"),
        ((greys(), np.eye(3)), DataError, "give its affine"),
        ((greys()[0], AFFINE), DataError, "shape"),
        ((np.full((4, 4, 4), np.nan), AFFINE), DataError, "64 NaN"),
        ((np.ones((4, 4, 4)), AFFINE), DataError, "constant"),
        ((greys().astype(complex), AFFINE), DataError, "complex128"),
        ((np.array([["a"]]), AFFINE), DataError, "shape"),
        ((nib.Nifti1Image(greys(), AFFINE), AFFINE), ConfigError, "affine of its own"),
        ((nib.MGHImage(greys(), AFFINE),), DataError, "MGHImage"),
        (("/nowhere.nii.gz",), DataError, "does not exist"),
    ],
)
def test_what_is_not_an_image_is_a_sentence(run, given, error, words):
    with pytest.raises(error, match=words):
        model(run).predict(*given)


def test_a_folder_of_several_images_is_not_one(run, image):
    save(image.parent / "other.nii.gz", greys(), TILTED)
    with pytest.raises(ConfigError, match="2 images"):
        model(run).predict(image.parent)


def test_a_method_without_a_translator_says_so(tmp_path):
    with pytest.raises(ConfigError, match="'threshold' does not translate"):
        model(stand_in_run(tmp_path / "run", 12)).translate(greys(), AFFINE)


# Scores


@pytest.fixture
def pair(tmp_path):
    """A truth of four boxes, and a prediction that is off by a voxel."""
    truth = np.zeros((32, 32, 4), np.uint8)
    for organ, box in BOXES.items():
        truth[box] = organ
    prediction = np.roll(truth, 1, axis=0)
    paths = (
        save(tmp_path / "p" / "case.nii.gz", prediction, AFFINE),
        save(tmp_path / "t" / "case.nii.gz", truth, AFFINE),
    )
    return paths, (prediction, truth)


def same(one, two):
    return all(
        a[:6] == b[:6] and a[7:] == b[7:] and (a.value == b.value or (math.isnan(a.value) and math.isnan(b.value)))
        for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("protocol", ["3d-mm", "sifa", "attent-code", "chaos"])
def test_scores_of_every_form_are_those_of_evaluate(pair, protocol):
    (p, t), arrays = pair
    rows = evaluate(p, t, EvaluateOptions([protocol]))
    assert rows[0].organ == "liver" and rows[0].protocol == protocol and len(rows) >= 4
    forms = {
        "paths": score(p, t, protocol=protocol),
        "nibabel": score(nib.load(p), nib.load(t), protocol=protocol, case="case"),
        "arrays": score(*arrays, AFFINE, protocol=protocol, case="case"),
        "mixed": score(arrays[0], t, AFFINE, protocol=protocol, case="case"),
        "an array and an image": score(arrays[0], nib.load(t), AFFINE, protocol=protocol, case="case"),
        "other types": score(
            arrays[0].astype(np.int64), arrays[1].astype(float), AFFINE, protocol=protocol, case="case"
        ),
    }
    for name, found in forms.items():
        assert same(found, rows), name


def test_dice_of_a_shifted_box_is_as_by_hand(pair):
    """The liver is 10 voxels long in x, so that 9 of 10 overlap."""
    _, arrays = pair
    values = {(row.organ, row.metric): row.value for row in score(*arrays, AFFINE)}
    assert values["liver", "dice"] == pytest.approx(0.9)
    assert values["spleen", "dice"] == pytest.approx(0.8)


def test_several_protocols_are_scored_at_once_and_rows_become_a_frame(pair):
    pandas = pytest.importorskip("pandas")
    _, arrays = pair
    rows = score(*arrays, AFFINE, protocol=["3d-mm", "sifa"])
    frame = rows.to_frame()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == len(rows)
    assert set(frame.protocol) == {"3d-mm", "sifa"} and list(frame.columns)[3:6] == ["case", "organ", "metric"]
    assert frame[(frame.organ == "liver") & (frame.metric == "dice")].value.iloc[0] == pytest.approx(0.9)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda p, t: ((p, t[:, :, :3], AFFINE), {}), "grid"),
        (lambda p, t: ((p, t + 7, AFFINE), {}), "value"),
        (lambda p, t: ((p + 0.4, t, AFFINE), {}), "integers"),
        (lambda p, t: ((p, t), {}), "affine"),
        (lambda p, t: ((p, t, AFFINE), {"protocol": "4d"}), "'4d'"),
        (lambda p, t: ((p, t, AFFINE), {"organs": "liver=x"}), "liver=x"),
    ],
)
def test_label_maps_that_cannot_be_scored_are_a_sentence(pair, change, words):
    given, more = change(*pair[1])
    with pytest.raises((ConfigError, DataError), match=words):
        score(*given, **more)
