"""The history of images: what goes in comes out at most once more, and never more than `size` are kept."""

import pytest
import torch
from torch import nn

from attent_kit.image_pool import ImagePool


def images(*numbers):
    """[B, 1, 2, 2], each image constant."""
    return torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()


def numbers(x):
    return x[:, 0, 0, 0].tolist()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def filled(size):
    pool = ImagePool(size)
    pool(images(*range(size)))
    return pool


@pytest.mark.parametrize("batch", [1, 5, 50])
def test_the_first_50_images_pass_through_and_are_kept(batch):
    pool = ImagePool()
    for first in range(0, 50, batch):
        given = images(*range(first, first + batch))
        assert torch.equal(pool(given), given)
    assert numbers(pool.images) == list(range(50))


def test_a_full_pool_gives_back_the_image_or_exchanges_it_for_a_kept_one():
    pool = filled(5)
    exchanged = 0
    for number in range(5, 505):
        before = numbers(pool.images)
        given = images(number)
        (returned,) = numbers(pool(given))
        after = numbers(pool.images)
        if returned == number:
            assert after == before
        else:
            exchanged += 1
            assert sorted(after) == sorted({*before, number} - {returned})
    # Half of 500, give or take four standard deviations of 11.2.
    assert 205 <= exchanged <= 295


def test_every_place_of_a_full_pool_is_exchanged():
    pool = filled(5)
    pool(images(*range(5, 205)))
    assert min(numbers(pool.images)) >= 5


def test_no_image_is_shown_twice_and_none_is_lost():
    pool = ImagePool(10)
    shown = [n for first in range(0, 300, 3) for n in numbers(pool(images(first, first + 1, first + 2)))]
    # The first 10 are shown when they come and may be shown once more; every other image at most once.
    assert all(shown.count(n) == 1 for n in set(shown) if n >= 10)
    assert all(shown.count(n) <= 2 for n in range(10))
    assert set(shown) | set(numbers(pool.images)) == set(range(300))


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_never_more_than_size_images_are_kept(batch):
    pool = ImagePool(5)
    for _ in range(4):
        assert pool(torch.rand(batch, 3, 4, 6)).shape == (batch, 3, 4, 6)
        assert pool.images.shape == (5, 3, 4, 6)
    assert pool.seen.item() == 4 * batch


def test_a_pool_of_one_keeps_the_last_exchanged_image():
    pool = filled(1)
    kept = 0.0
    for number in range(1, 30):
        (returned,) = numbers(pool(images(number)))
        assert returned in (number, kept)
        kept = number if returned == kept else kept
    assert kept > 0


def test_a_pool_of_none_passes_everything_through():
    pool = ImagePool(0)
    for number in range(5):
        assert numbers(pool(images(number))) == [number]
    assert pool.images.numel() == 0


@pytest.mark.parametrize("size", [0, 3])
def test_no_gradient_passes(size):
    x = images(1, 2).requires_grad_()
    assert not ImagePool(size)(x).requires_grad


def test_kept_images_do_not_change_with_the_tensor_they_came_from():
    pool = ImagePool(2)
    given = images(1, 2)
    returned = pool(given)
    given.zero_()
    returned.fill_(9)
    assert numbers(pool.images) == [1, 2]


# Checkpoints


def continued(pool):
    torch.manual_seed(1)
    return [numbers(pool(images(n, n + 1))) for n in range(100, 140, 2)]


@pytest.mark.parametrize("seen", [0, 2, 5, 40])
def test_a_restored_pool_goes_on_as_the_saved_one(seen):
    saved = nn.ModuleDict({"pool": ImagePool(5)})
    if seen:
        saved["pool"](images(*range(seen)))
    restored = nn.ModuleDict({"pool": ImagePool(5)})
    restored.load_state_dict({name: value.clone() for name, value in saved.state_dict().items()})
    assert continued(restored["pool"]) == continued(saved["pool"])


def test_an_empty_pool_restored_over_a_full_one_is_empty():
    pool = filled(3)
    pool.load_state_dict(ImagePool(3).state_dict())
    assert numbers(pool(images(7, 8, 9))) == [7, 8, 9]
    assert numbers(pool.images) == [7, 8, 9]
