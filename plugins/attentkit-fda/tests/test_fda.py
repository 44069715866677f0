"""The exchange of frequencies with slices whose spectrum is known, and the contract of an alignment."""

import torch
from attentkit_fda.fda import FDA, with_low_frequencies_of

from attent_kit.testing import check_alignment

SMALL = {"segmentor": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}, "segment_batch_size": 2}


def wave(cycles, size=32):
    """[1, 1, size, size]: so many cycles of a cosine along the rows."""
    return torch.cos(2 * torch.pi * cycles * torch.arange(size) / size).expand(1, 1, size, size)


def test_it_keeps_the_contract():
    check_alignment(FDA, SMALL)


def test_of_constant_slices_the_mean_is_exchanged_whatever_its_sign():
    for content, style in ((-0.5, 0.25), (0.5, -0.75)):
        mixed = with_low_frequencies_of(torch.full((1, 1, 8, 8), style), torch.full((1, 1, 8, 8), content), 0.01)
        assert torch.allclose(mixed, torch.full((1, 1, 8, 8), style), atol=1e-6)


def test_a_fast_wave_stays_and_a_slow_one_takes_the_amplitude_of_the_style():
    """0.1 of 32 pixels is 3: cycles up to 3 are exchanged."""
    content = 0.1 * wave(2) + 0.2 * wave(8)
    style = 0.3 * wave(2) + 0.05 * wave(8) - 0.25
    mixed = with_low_frequencies_of(style, content, 0.1)
    assert torch.allclose(mixed, 0.3 * wave(2) + 0.2 * wave(8) - 0.25, atol=1e-5)


def test_the_phase_is_that_of_the_content():
    shifted = wave(2).roll(4, dims=-1)
    assert torch.allclose(with_low_frequencies_of(0.3 * wave(2), 0.1 * shifted, 0.1), 0.3 * shifted, atol=1e-5)


def test_slices_stay_within_their_range():
    content, style = 0.9 * wave(8), 0.9 * wave(2)
    mixed = with_low_frequencies_of(style, content, 0.1)
    assert mixed.max() == 1 and mixed.min() == -1


def test_of_a_slice_and_itself_nothing_changes():
    x = torch.rand(2, 1, 33, 40) * 1.8 - 0.9
    assert torch.allclose(with_low_frequencies_of(x, x, 0.3), x, atol=1e-5)
