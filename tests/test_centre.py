"""Slices centred on the body: the table is air, predictions come back to the native grid, and no label is looked at."""

import json
import tomllib

import nibabel as nib
import numpy as np
import pytest

import attent_kit as ak
from attent_kit.data.prepared.file import Prepared, encode
from attent_kit.data.scans.volumes import read_volume
from attent_kit.data.space.intensity import Intensity
from attent_kit.data.space.slicing import NO_BODY, Slicing
from attent_kit.errors import ConfigError
from support.commands import says, train_words
from test_volumes import ORIENTATIONS, turned

AFFINE = np.array([[2.0, 0, 0, -63], [0, 2.0, 0, -40], [0, 0, 5.0, 7], [0, 0, 0, 1]])
"""RAS, 2 x 2 x 5 mm."""
CENTRE = (22.5, 40.5)
"""X and Y of the body's middle; that of the grid is 31.5."""


def abdomen(modality, seed=0):
    """An ellipse off the middle on a table, with a lung and four organs, and an arm beside it in one of its six slices."""
    rng = np.random.default_rng(seed)
    x, y, _ = np.meshgrid(np.arange(64), np.arange(64), np.arange(6), indexing="ij")
    body = ((x - CENTRE[0]) / 20) ** 2 + ((y - CENTRE[1]) / 15) ** 2 <= 1
    lung = (abs(x - 30) < 4) & (abs(y - 40) < 4)
    table = (y >= 8) & (y <= 10)
    body[42:50, 36:44, 5] = True
    air, inside, top = (-1000.0, 40.0, 200.0) if modality == "ct" else (2.0, 300.0, 40.0)
    labels = np.zeros(body.shape, np.uint8)
    for organ in (1, 2, 3, 4):
        labels[32 - 6 * organ : 36 - 6 * organ, 44:48, 1:4] = organ
    image = np.where(table, top, np.where(body & ~lung, inside + 20 * labels, air))
    return (image + rng.normal(0, 2, body.shape)).astype(np.float32), labels


def write(folder, modality, centred="body", **more):
    """Three cases of a modality as NIfTI, and what `prepare` makes of them."""
    for n in (1, 2, 3):
        for kind, array in zip(("images", "labels"), abdomen(modality, n), strict=True):
            (folder / modality / kind).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, AFFINE), folder / modality / kind / f"{modality}_{n}.nii.gz")
    return ak.prepare(
        folder / modality / "images", folder / f"{modality}.h5", labels=folder / modality / "labels", modality=modality,
        size=48, train=[f"{modality}_1"], val=[f"{modality}_2"], test=[f"{modality}_3"], centre=centred, **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def centred(tmp_path_factory):
    folder = tmp_path_factory.mktemp("centred")
    for modality in ("mr", "ct"):
        write(folder, modality, pixel=2.0)
    return folder


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_the_body_is_in_the_middle_its_lung_stays_and_the_table_is_air(centred, modality):
    domain = Prepared.open(centred / f"{modality}.h5")
    assert domain.centre == domain.manifest["centre"] == "body"
    slices = domain.slices(f"{modality}_1")[:, 0].astype(np.float32)
    for plane in slices[:5]:
        for axis in (0, 1):
            found = np.flatnonzero((plane > -0.9).any(axis))
            assert abs(found[0] + found[-1] - 47) <= 1 and len(found) <= 41
    row, column = domain.manifest["cases"][0]["middle"]
    assert (row, column) == (63 - CENTRE[1], 63 - CENTRE[0])
    (told,) = domain.warnings
    assert "3 of 6" in told and "--foreground-only" in told


def test_the_grey_values_of_mr_are_measured_on_the_body_alone(centred, tmp_path):
    inside, everywhere = Prepared.open(centred / "mr.h5"), write(tmp_path, "mr", "grid", pixel=2.0)
    assert everywhere.intensity.low < 10 and inside.intensity.low < 10  # the lung is part of the body
    assert everywhere.manifest["cases"][0]["grey"]["percentiles"][0] < 45 < 250
    assert inside.manifest["cases"][0]["grey"]["percentiles"][1] > 250


@pytest.mark.parametrize("pixel", [2.0, None])
def test_every_axis_order_gives_the_same_slices_and_labels_come_back_to_their_voxels(pixel, tmp_path):
    image, labels = abdomen("ct")
    slicing = Slicing(64, pixel, "body")
    expected = None
    for orientation in ORIENTATIONS[::5]:
        stored, affine = turned(image, AFFINE, orientation)
        drawn, _ = turned(labels, AFFINE, orientation)
        placed = slicing.place(stored, affine, "ct")
        slices = placed.grid.to_slices(placed.array)
        expected = slices if expected is None else expected
        assert np.array_equal(slices, expected)
        assert np.array_equal(placed.grid.to_native(placed.grid.labels_to_slices(drawn)), drawn)
        assert placed.grid.outside(drawn) == 0


def test_the_pixels_of_a_slice_are_native_ones_where_neither_is_larger():
    image, _ = abdomen("ct")
    placed = Slicing(40, 2.0, "body").place(image, AFFINE, "ct")
    slices = placed.grid.to_slices(placed.array)
    # Rows run from front to back, columns from right to left; the middle of the square lies between two pixels.
    first = [int(c + 0.5) - 20 for c in CENTRE]
    window = image[first[0] : first[0] + 40, first[1] : first[1] + 40, 2]
    body = placed.body[first[0] : first[0] + 40, first[1] : first[1] + 40, 2]
    assert np.allclose(slices[2][body[::-1, ::-1].T], window[::-1, ::-1].T[body[::-1, ::-1].T], atol=1e-3)
    assert body.sum() > 900


def test_no_label_moves_the_square(tmp_path):
    one = write(tmp_path, "ct", pixel=2.0)
    before = one.slices("ct_1"), one.grid("ct_1")
    one.close()
    for path in (tmp_path / "ct" / "labels").iterdir():
        labels = nib.load(path)
        nib.save(nib.Nifti1Image(np.roll(np.asarray(labels.dataobj), 20, axis=0), labels.affine), path)
    other = ak.prepare(
        tmp_path / "ct" / "images", tmp_path / "other.h5", labels=tmp_path / "ct" / "labels", modality="ct", size=48, pixel=2.0,
        train=["ct_1"], val=["ct_2"], test=["ct_3"], centre="body",
    )  # fmt: skip
    assert np.array_equal(other.slices("ct_1"), before[0]) and other.grid("ct_1") == before[1]
    assert any("organs lie outside the body that was found" in warning for warning in other.warnings)


def test_what_is_predicted_by_a_run_is_what_it_scored_and_lies_on_the_native_grid(attentkit, centred, tmp_path):
    run = tmp_path / "run"
    assert attentkit(*train_words(centred, run)).code == 0
    domain = json.loads((run / "domain.json").read_text())
    assert (domain["size"], domain["pixel_mm"], domain["centre"]) == (48, 2.0, "body")
    image = centred / "ct" / "images" / "ct_3.nii.gz"
    outcome = attentkit("predict", run, image, tmp_path / "p.nii.gz", "-d", "cpu")
    assert outcome.code == 0 and "Warning" not in outcome.err
    written = nib.load(tmp_path / "p.nii.gz")
    assert written.shape == (64, 64, 6) and np.array_equal(written.affine, nib.load(image).affine)
    kept = nib.load(run / "predictions" / "ct_3.nii.gz")
    assert np.array_equal(np.asarray(written.dataobj), np.asarray(kept.dataobj))
    assert json.loads((tmp_path / "p.json").read_text())["slices"]["centre"] == "body"
    prepared = Prepared.open(centred / "ct.h5")
    slices, grid = encode(read_volume(image), prepared.slicing, prepared.intensity, "ct")
    assert np.array_equal(slices, prepared.slices("ct_3")) and grid == prepared.grid("ct_3")


def test_a_volume_without_a_body_stays_on_its_grid_and_is_told(attentkit, centred, tmp_path):
    # Single bright pixels everywhere: nothing that is thicker than a table's shell.
    array = np.random.default_rng(3).normal(-1000, 5, (32, 32, 3)).astype(np.float32)
    array[::4, ::4] += 1100
    nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / "empty.nii.gz")
    placed = Slicing(16, None, "body").place(array, AFFINE, "ct")
    assert placed.body is None and placed.doubts == (NO_BODY,) and np.array_equal(placed.array, array)
    words = ["--modality", "ct", "--allow-unlabelled", "--train", "empty", "--size", 16, "--centre", "body"]
    outcome = attentkit("prepare", tmp_path / "empty.nii.gz", *words, "-o", tmp_path / "x.h5")
    assert outcome.code == 0 and "Warning: empty: no body" in outcome.err and "centred on the body" in outcome.out
    assert "middle" not in Prepared.open(tmp_path / "x.h5").manifest["cases"][0]
    run = tmp_path / "run"
    assert attentkit(*train_words(centred, run)).code == 0
    outcome = attentkit("predict", run, tmp_path / "empty.nii.gz", tmp_path / "p.nii.gz", "-d", "cpu")
    assert outcome.code == 0 and "Warning: empty.nii.gz: no body" in outcome.err


def test_a_body_that_fills_the_scan_is_left_as_it_is():
    image = np.random.default_rng(1).uniform(30, 60, (40, 40, 3)).astype(np.float32)
    image[5, 5] = 20
    placed = Slicing(40, None, "body").place(image, AFFINE, "mr")
    assert placed.grid.middle == (19.5, 19.5) and np.array_equal(placed.array, image)
    assert np.array_equal(placed.grid.to_slices(image), Slicing(40).place(image, AFFINE, "mr").grid.to_slices(image))


def test_mr_whose_air_is_a_little_below_0_and_z_scores():
    image, _ = abdomen("mr")
    filtered = np.where(image < 100, np.random.default_rng(2).uniform(-20, 8, image.shape), image).astype(np.float32)
    scores = (image - image.mean()) / image.std()
    for array in (filtered, scores.astype(np.float32)):
        placed = Slicing(48, 2.0, "body").place(array, AFFINE, "mr")
        assert placed.grid.middle == (63 - CENTRE[1], 63 - CENTRE[0])
        assert placed.body.mean() < 0.35


def test_off_is_as_it_always_was(tmp_path):
    domain = write(tmp_path, "ct", "grid")
    manifest = tomllib.loads((tmp_path / "ct.toml").read_text())
    assert "centre" not in manifest and "centre" not in manifest["options"] and domain.centre == "grid"
    assert all("middle" not in record for record in manifest["cases"])


def test_other_centres_are_refused_and_two_domains_that_differ_are_noticed(attentkit, centred, tmp_path):
    with pytest.raises(ConfigError, match="'bodi'. Did you mean 'body'"):
        ak.prepare(tmp_path, tmp_path / "x.h5", centre="bodi")
    write(tmp_path, "mr", "grid", pixel=2.0).close()
    outcome = attentkit("check", tmp_path / "mr.h5", centred / "ct.h5", "--json")
    (found,) = [each for each in json.loads(outcome.out) if each["check"] == "agreement"]
    assert found["severity"] == "warning" and found["evidence"].startswith("centre is grid in")
    assert says(attentkit("prepare", tmp_path, "-o", tmp_path / "x.h5", "--centre", "bodi"), 2, "bodi")


def test_an_exported_model_says_how_the_body_is_found(attentkit, centred, tmp_path):
    assert attentkit(*train_words(centred, tmp_path / "run")).code == 0
    assert attentkit("export", tmp_path / "run", tmp_path / "m.pt2", "--format", "torch-export").code == 0
    facts = json.loads((tmp_path / "m.json").read_text())["preprocessing"]
    assert facts["centre"] == "body" and "-250 HU" in facts["centre_rule"] and "3.5 %" in facts["centre_rule"]
    slicing = Slicing.from_dict(facts)
    slices, _ = encode(
        read_volume(centred / "ct/images/ct_3.nii.gz"), slicing, Intensity.from_dict(facts["intensity"]), "ct"
    )
    assert np.array_equal(slices, Prepared.open(centred / "ct.h5").slices("ct_3"))
