"""Batches of two prepared domains: what is in them, when, and what is not.

Each slice of the files is told by its brightest value: slice z of case n is bright at 10 n + z, of 100 that become 1.
"""

from collections import Counter
from itertools import combinations

import nibabel as nib
import numpy as np
import pytest
import torch

from attent_kit.data.prepare.options import PrepareOptions
from attent_kit.data.prepare.prepare import prepare
from attent_kit.data.prepared.augment import Augmentation
from attent_kit.data.prepared.batches import Batches, ResidentSlices, StreamedSlices, training_batches
from attent_kit.data.prepared.file import Prepared
from attent_kit.data.sets.pairs import Pair
from attent_kit.errors import DataError
from support.small_runs import equal

CPU = torch.device("cpu")
STILL = Augmentation(rotation=0, scale=0, shift=0)
BLANK = {14, 20}
"""Slices without contrast."""
SEEN = {10, 11, 12, 13, 21, 22, 23, 24}
"""What training on cases 1 and 2 sees; case 3 is for testing."""


def domain(folder, labelled=(1, 2, 3), channels=1, train=(1, 2)):
    """Cases 1, 2 and 3 of five slices of 8 x 8, prepared; the liver is where a slice is bright."""
    folder.mkdir()
    pairs = []
    for case in (1, 2, 3):
        image, labels = np.zeros((8, 8, 5), np.float32), np.zeros((8, 8, 5), np.uint8)
        for z in range(5):
            if (number := 10 * case + z) not in BLANK:
                image[1:4, 2:7, z] = number
                labels[1:4, 2:7, z] = 1
        image[0, 0] = -0.5  # below the window; an image of whole values alone is taken for a label map
        files = [folder / f"{kind}{case}.nii.gz" for kind in ("image", "labels")]
        for file, array in zip(files, (image, labels), strict=True):
            nib.save(nib.Nifti1Image(array, np.eye(4)), file)
        pairs.append(Pair(str(case), files[0], files[1] if case in labelled else None))
    split = {"train": [str(case) for case in train], "test": [str(c) for c in (1, 2, 3) if c not in train]}
    options = PrepareOptions(modality="ct", organs={"liver": 1}, size=8, channels=channels, window=(0, 100), **split)
    prepare(pairs, folder / "domain.h5", options)
    return Prepared.open(folder / "domain.h5")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return domain(tmp_path_factory.mktemp("source") / "d")


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory):
    return domain(tmp_path_factory.mktemp("target") / "d", labelled=(3,))


@pytest.fixture(scope="module")
def neighbouring(tmp_path_factory):
    return domain(tmp_path_factory.mktemp("neighbouring") / "d", channels=3)


def batches(source, target, augmentation=STILL, seed=0, asked=False, resident=True):
    return training_batches(source, target, augmentation, seed, CPU, asked, resident)


def numbers(x):
    """Which slices a batch holds."""
    middle = x[:, x.shape[1] // 2]
    return [round(50 * (value + 1)) for value in middle.amax(dim=(1, 2)).tolist()]


def many(count=40, seed=0, other=None):
    """Batches of two domains whose n-th slice is n of 200 throughout, kept in memory."""
    images = np.arange(1, count + 1, dtype=np.float16).reshape(-1, 1, 1) * np.ones((1, 4, 4), np.float16)
    labels = np.zeros((count, 4, 4), np.uint8)
    slices = ResidentSlices(images / 50 - 1, np.arange(count)[:, None], labels, CPU)
    return Batches(slices, other or slices, STILL, seed, CPU)


# What is in a batch


def test_images_and_labels_have_their_documented_types(source, unlabelled):
    batch = batches(source, unlabelled, Augmentation()).batch(0, 4)
    for x in (batch.x_s, batch.x_t):
        assert (x.shape, x.dtype) == ((4, 1, 8, 8), torch.float32)
        assert x.min() >= -1 - 1e-6 and x.max() <= 1 + 1e-6
    assert (batch.y_s.shape, batch.y_s.dtype) == ((4, 8, 8), torch.int64)


def test_labels_belong_to_their_image(source):
    made = batches(source, source, asked=True)
    for step in range(4):
        batch = made.batch(step, 2)
        for x, y in ((batch.x_s, batch.y_s), (batch.x_t, batch.y_t)):
            assert torch.equal(y[:, None] == 1, x > -0.9)


def test_neighbouring_slices_are_channels_and_the_last_is_its_own_neighbour(neighbouring):
    made = batches(neighbouring, neighbouring)
    found = {}
    for step in range(8):
        x = made.batch(step, 1).x_s
        (number,) = numbers(x)
        found[number] = [round(50 * (channel + 1)) for channel in x[0].amax(dim=(1, 2)).tolist()]
    expected = {n: [n - 1, n, n + 1] for n in SEEN}
    expected |= {10: [10, 10, 11], 13: [12, 13, 0], 21: [0, 21, 22], 24: [23, 24, 24]}
    assert found == expected


def test_only_training_cases_are_seen_and_no_blank_slice(source, unlabelled):
    made = batches(source, unlabelled)
    seen = [made.batch(step, 2) for step in range(8)]
    assert {n for batch in seen for n in numbers(batch.x_s)} == SEEN
    assert {n for batch in seen for n in numbers(batch.x_t)} == SEEN


def test_target_labels_are_none_unless_they_are_asked_for(source):
    assert batches(source, source).batch(0, 2).y_t is None
    assert batches(source, source, asked=True).batch(0, 2).y_t.shape == (2, 8, 8)


@pytest.mark.parametrize("resident", [True, False])
def test_target_labels_are_not_even_read_unless_they_are_asked_for(source, monkeypatch, resident):
    target = Prepared.open(source.path)

    def forbidden(*arguments):
        raise AssertionError("target labels were read")

    for name in ("labels", "label_slices", "label_row", "truth"):
        monkeypatch.setattr(target, name, forbidden)
    batches(source, target, resident=resident).batch(0, 4)
    with pytest.raises(AssertionError, match="target labels were read"):
        batches(source, target, asked=True, resident=resident).batch(0, 4)


def test_asking_for_target_labels_changes_no_image(source):
    without = batches(source, source, Augmentation()).batch(3, 4)
    with_labels = batches(source, source, Augmentation(), asked=True).batch(3, 4)
    assert equal(without[:3], with_labels[:3])


def test_right_stays_right_in_every_batch():
    y = np.zeros((10, 32, 32), np.uint8)
    y[:, 12:20, 4:10], y[:, 12:20, 22:28] = 1, 2
    slices = ResidentSlices(y.astype(np.float16), np.arange(10)[:, None], y, CPU)
    made = Batches(slices, slices, Augmentation(), 0, CPU)
    columns = torch.arange(32.0)
    for step in range(20):
        labels = made.batch(step, 10).y_s
        right, left = (((labels == n).sum(dim=1) * columns).sum(1) / (labels == n).sum(dim=(1, 2)) for n in (1, 2))
        assert (right + 10 < left).all()


# When


def test_a_batch_is_a_function_of_seed_and_step(source, unlabelled):
    def batch(seed, step):
        return batches(source, unlabelled, Augmentation(), seed).batch(step, 2)

    assert equal(batch(0, 3), batch(0, 3))
    assert not equal(batch(0, 3), batch(0, 4))
    assert not equal(batch(0, 3), batch(1, 3))


def test_steps_may_be_asked_for_in_any_order(source, unlabelled):
    forwards, backwards = (batches(source, unlabelled, Augmentation()) for _ in range(2))
    expected = [forwards.batch(step, 3) for step in range(30)]
    assert all(equal(backwards.batch(step, 3), expected[step]) for step in reversed(range(30)))


def test_the_same_slice_is_moved_differently_each_time():
    image = np.random.default_rng(0).uniform(-1, 1, (1, 16, 16)).astype(np.float16)
    slices = ResidentSlices(image, np.zeros((1, 1), np.int64), np.zeros((1, 16, 16), np.uint8), CPU)
    made, other = (Batches(slices, slices, Augmentation(), seed, CPU) for seed in (0, 1))
    moved = [*made.batch(0, 2).x_s, *made.batch(0, 2).x_t, *made.batch(1, 2).x_s, *other.batch(0, 2).x_s]
    assert all(not torch.equal(a, b) for a, b in combinations(moved, 2))


def test_batches_leave_the_random_numbers_of_the_networks_alone():
    before = torch.get_rng_state()
    many().batch(0, 4)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 40, 100])
def test_every_slice_is_seen_once_an_epoch(size):
    made = many()
    steps = 3 * 40 // size + 1
    for domain in ("x_s", "x_t"):
        order = [n for step in range(steps) for n in numbers(getattr(made.batch(step, size), domain))]
        for epoch in range(3):
            assert sorted(order[40 * epoch : 40 * (epoch + 1)]) == list(range(1, 41))


def test_domains_of_different_length_keep_epochs_of_their_own():
    made = many(40, other=many(3).source)
    order = [n for step in range(6) for n in numbers(made.batch(step, 2).x_t)]
    assert Counter(order) == {1: 4, 2: 4, 3: 4}


def test_each_epoch_domain_and_seed_has_its_own_order():
    first, second = many().batch(0, 40), many().batch(1, 40)
    other = many(seed=1).batch(0, 40)
    orders = [numbers(x) for x in (first.x_s, first.x_t, second.x_s, second.x_t, other.x_s, other.x_t)]
    assert len({tuple(order) for order in orders}) == 6


# Where from


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("which", ["source", "neighbouring"])
def test_streamed_batches_equal_resident_ones(which, asked, request):
    prepared = request.getfixturevalue(which)
    resident, streamed = (batches(prepared, prepared, Augmentation(), 5, asked, kept) for kept in (True, False))
    assert isinstance(resident.source, ResidentSlices) and isinstance(streamed.source, StreamedSlices)
    assert all(equal(resident.batch(step, 3), streamed.batch(step, 3)) for step in range(8))


def test_slices_are_kept_in_memory_only_where_they_fit_into_half_of_it(source, monkeypatch):
    size = 8 * 8 * 8 * 2  # eight slices of 8 x 8 in half precision
    for free, kind in ((2 * size + 1, ResidentSlices), (2 * size, StreamedSlices)):
        monkeypatch.setattr("attent_kit.data.prepared.batches._free_memory", lambda device, free=free: free)
        assert type(batches(source, source, resident=None).source) is kind


def test_a_source_without_labels_is_refused(source, unlabelled):
    with pytest.raises(DataError, match=r"training case 1 has no labels.*--labels"):
        batches(unlabelled, source)


def test_a_target_without_labels_is_refused_only_if_they_are_asked_for(source, unlabelled):
    assert batches(source, unlabelled).batch(0, 1).y_t is None
    with pytest.raises(DataError, match="training case 1 has no labels"):
        batches(source, unlabelled, asked=True)


def test_a_domain_without_training_cases_is_refused(source, tmp_path):
    with pytest.raises(DataError, match=r"has no training case.*another split"):
        batches(source, domain(tmp_path / "d", train=()))
