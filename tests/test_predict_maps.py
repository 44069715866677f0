"""Probabilities, entropy and translation on the grid of the image, and batches that fit the memory."""

import nibabel as nib
import numpy as np
import pytest
import torch

from attent_kit.data.space.geometry import Grid
from attent_kit.engine.apply.answers import native_probabilities
from attent_kit.engine.run import checkpoint
from attent_kit.engine.run.predict import entropy, segment_slices, slices_as_source
from attent_kit.errors import ConfigError, RunError
from support.cases import AFFINE, contents
from support.stand_in import (
    REGISTRY,
    SOFT,
    Levels,
    Threshold,
    expected,
    facts_of,
    greys,
    predict,
    save,
    stand_in_run,
    whole_run,
)

CPU = torch.device("cpu")
TILTED = np.array([[0, -2.0, 0, 5], [1.6, 0, -3.0, 4], [1.2, 0, 4.0, 3], [0, 0, 0, 1]])


def of(path):
    return np.asarray(nib.load(path).dataobj)


def test_probabilities_and_entropy_are_those_of_the_softmax(tmp_path):
    """With the soft slope, 2 ln 2: a grey value of 100 is x = 0, where the logits are 0, ln 2 and 0; one of 150 is x = 1/2
    with 0, 2 ln 2 and 2 ln 2; one of 0 is x = -1 with 0, -ln 2 and -4 ln 2."""
    array = np.full((12, 12, 3), 100, np.float32)
    array[0], array[1] = 150, 0
    array[2:5] = np.random.default_rng(0).uniform(0, 150, (3, 12, 3))  # an image, not a label map
    path = save(tmp_path / "image.nii.gz", array, AFFINE)
    run = stand_in_run(tmp_path / "run", 12, SOFT)
    predict(run, path, tmp_path / "l.nii.gz", maps=["probabilities", "entropy"])
    p, e = of(tmp_path / "l_probabilities.nii.gz"), of(tmp_path / "l_entropy.nii.gz")
    assert p.shape == (12, 12, 3, 3) and p.dtype == e.dtype == np.float32 and e.shape == (12, 12, 3)
    assert np.allclose(p[5:], [1 / 4, 1 / 2, 1 / 4], atol=1e-6)
    assert np.allclose(p[0], [1 / 9, 4 / 9, 4 / 9], atol=1e-6)
    assert np.allclose(p[1], [16 / 25, 8 / 25, 1 / 25], atol=1e-6)
    # -(2 * 1/4 ln 1/4 + 1/2 ln 1/2) / ln 3 = 1.0397 / 1.0986
    assert np.allclose(e[5:], 0.94639, atol=1e-5)


@pytest.mark.parametrize("affine", [AFFINE, np.diag([-2.0, 2, 5, 1]), TILTED])
@pytest.mark.parametrize("size", [12, 7, 20])
def test_probabilities_sum_to_one_and_labels_are_their_largest(tmp_path, affine, size):
    path = save(tmp_path / "image.nii.gz", greys((12, 9, 5)), affine)
    run = stand_in_run(tmp_path / "run", size, SOFT)
    predict(run, path, tmp_path / "l.nii.gz", maps=["probabilities", "entropy"])
    image, p, e = nib.load(path), of(tmp_path / "l_probabilities.nii.gz"), of(tmp_path / "l_entropy.nii.gz")
    assert np.abs(p.sum(-1) - 1).max() < 1e-6 and p.min() >= 0
    assert np.array_equal(p.argmax(-1), of(tmp_path / "l.nii.gz"))
    assert 0.2 < e.min() < e.max() <= 1
    for name in ("probabilities", "entropy"):
        found = nib.load(tmp_path / f"l_{name}.nii.gz")
        assert np.array_equal(found.affine, image.affine) and found.shape[:3] == image.shape
        assert found.header["sform_code"] == found.header["qform_code"] == 1


def test_entropy_is_one_where_all_classes_are_alike_and_zero_where_one_is_certain():
    alike, certain = np.full((4, 1, 1, 1), 0.25, np.float32), np.array([0, 1, 0, 0], np.float32).reshape(4, 1, 1, 1)
    assert entropy(iter(alike)) == pytest.approx(1, abs=1e-6)
    assert entropy(iter(certain)) == 0
    assert all(entropy(iter(np.full((k, 1, 1, 1), 1 / k, np.float32))) <= 1 for k in range(2, 40))
    # 1/2 and 1/2 of four classes: ln 2 / ln 4
    assert entropy(iter(np.array([0.5, 0, 0.5, 0], np.float32).reshape(4, 1, 1, 1))) == pytest.approx(0.5)


def test_a_probability_between_pixels_is_interpolated():
    """Two pixels of 4 mm over four of 2 mm: those in the middle take 3/4 of the nearer pixel and 1/4 of the other."""
    grid = Grid.of((4, 4, 1), np.diag([-2.0, -2, 2, 1]), 2)
    score = np.array([[[1.0, 0.0], [1.0, 0.0]]], np.float32)
    background, organ = native_probabilities(grid, np.stack([score, 1 - score]))
    assert background[:, 0, 0].tolist() == [1.0, 0.75, 0.25, 0.0]
    assert np.array_equal(background + organ, np.ones((4, 4, 1)))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_translation_lies_on_the_grid_of_the_image(tmp_path, channels):
    """The stand-in's source style is the negative of the image, on which 5 is -0.95 and 195 is 0.95."""
    array = greys((12, 10, 5))
    path = save(tmp_path / "image.nii.gz", array, TILTED)
    predict(whole_run(tmp_path / "run", 12, channels=channels), path, tmp_path / "l.nii.gz", maps=["translation"])
    found = nib.load(tmp_path / "l_translation.nii.gz")
    assert np.array_equal(found.affine, nib.load(path).affine) and found.get_data_dtype() == np.float32
    assert np.allclose(found.get_fdata(), 1 - array / 100, atol=1e-3)
    assert np.array_equal(of(tmp_path / "l.nii.gz"), expected(array))


def test_a_method_that_translates_nothing_says_so_before_anything_is_computed(tmp_path):
    path = save(tmp_path / "image.nii.gz", greys(), AFFINE)
    run = whole_run(tmp_path / "run", 12)
    (run / "config.toml").write_text((run / "config.toml").read_text().replace("translating", "threshold"))
    states = {"S": Levels().state_dict(), "": {}}
    checkpoint.write(
        run / "checkpoint.ckpt", {"step": 7, "networks": states, "optimizers": {}, "config": facts_of(run)["config"]}
    )
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match="'threshold' does not translate images"):
        predict(run, path, tmp_path / "l.nii.gz", maps=["translation"])
    assert contents(tmp_path) == before


def test_without_its_other_networks_a_run_translates_nothing(tmp_path):
    path = save(tmp_path / "image.nii.gz", greys(), AFFINE)
    run = stand_in_run(tmp_path / "run", 12, alignment="translating")
    with pytest.raises(ConfigError, match="segmentor.safetensors .* G_ts.*checkpoint.ckpt"):
        predict(run, path, tmp_path / "l.nii.gz", maps=["translation"])
    assert not (tmp_path / "l.nii.gz").exists()


def test_the_same_maps_are_the_same_bytes(tmp_path):
    path = save(tmp_path / "image.nii.gz", greys(), AFFINE)
    run = whole_run(tmp_path / "run", 9)
    maps = ["probabilities", "entropy", "translation"]
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        predict(run, path, tmp_path / folder, maps=maps)
    one = contents(tmp_path / "one")
    assert one == contents(tmp_path / "two") and len(one) == 5
    # Bytes 4 to 7 of a gzip file are a time.
    assert all(content[4:8] == bytes(4) for name, content in one.items() if name.endswith(".gz"))


# Batches


def stand_in(most=None):
    alignment = Threshold(None, None, None)
    alignment.S.most = most
    return alignment


IMAGES = np.random.default_rng(0).uniform(-1, 1, (10, 1, 8, 8)).astype(np.float16)


@pytest.mark.parametrize(
    "most, tried",
    [
        (None, [10]),
        (5, [10, 5, 5]),
        (3, [10, 5, 2, 2, 2, 2, 2]),
        (1, [10, 5, 2, *[1] * 10]),
    ],
)
def test_a_batch_that_does_not_fit_is_halved_and_the_answer_stays_the_same(most, tried):
    alignment = stand_in(most)
    assert np.array_equal(segment_slices(alignment, IMAGES, CPU), segment_slices(stand_in(), IMAGES, CPU))
    assert alignment.S.seen == tried


def test_many_slices_begin_with_sixteen_at_once():
    alignment = stand_in()
    assert segment_slices(alignment, np.repeat(IMAGES, 4, axis=0), CPU).shape == (3, 40, 8, 8)
    assert alignment.S.seen == [16, 16, 8]


def test_it_gives_up_with_a_sentence_where_a_single_slice_does_not_fit(tmp_path, monkeypatch):
    alignment = stand_in(0)
    with pytest.raises(RunError, match="cpu has too little memory for a single slice of 8 x 8 pixels"):
        segment_slices(alignment, IMAGES, CPU)
    assert alignment.S.seen == [10, 5, 2, 1]
    path = save(tmp_path / "image.nii.gz", greys(), AFFINE)
    run = stand_in_run(tmp_path / "run", 12)
    before = contents(tmp_path)
    monkeypatch.setattr(Levels, "forward", lambda self, x: torch.empty(2**50))
    with pytest.raises(RunError, match="a single slice of 12 x 12 pixels"):
        predict(run, path, tmp_path / "l.nii.gz")
    assert contents(tmp_path) == before


def test_the_translation_is_batched_alike():
    alignment = REGISTRY.alignment("translating")(None, None, None)
    seen = []

    def negative(x):
        seen.append(len(x))
        if len(x) > 4:
            raise torch.OutOfMemoryError("pretended")
        return -x

    alignment.as_source = negative
    assert np.array_equal(slices_as_source(alignment, IMAGES, CPU), -IMAGES.astype(np.float32))
    assert seen == [10, 5, 2, 2, 2, 2, 2]


def test_another_error_of_a_network_is_not_taken_for_a_lack_of_memory():
    alignment = stand_in()
    alignment.S.forward = lambda x: torch.zeros(2) + torch.zeros(3)
    with pytest.raises(RuntimeError, match="must match"):
        segment_slices(alignment, IMAGES, CPU)
