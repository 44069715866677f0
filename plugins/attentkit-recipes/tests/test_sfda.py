"""Which pseudo-labels count, in plain numbers, and the contract of an alignment."""

import torch
from attentkit_recipes.sfda import SourceFree, nearest, view

from attent_kit.build import Builder, configure
from attent_kit.interfaces import Batch, Segmentation, Task
from attent_kit.plugins import load
from attent_kit.testing import check_alignment

SMALL = {"segmentor": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}, "adapt_batch_size": 2, "views": 2}
TWO = Task(organs=("liver",))


def built(**options):
    registry = load().registry
    config = configure(SourceFree, {**SMALL, **options}, registry)
    return SourceFree(config, Builder(registry, TWO, 0), TWO).eval()


def answers(*logits):
    """A teacher that says these, one after another: [K, W] each."""
    said = [Segmentation(torch.tensor(one).view(1, 2, 1, -1), torch.zeros(1)) for one in logits]
    return lambda x: said.pop(0)


def test_it_keeps_the_contract():
    check_alignment(SourceFree, SMALL)


def test_it_keeps_the_contract_in_rounds():
    check_alignment(SourceFree, {**SMALL, "label_every": 2})


def test_in_rounds_the_segmentor_labels_the_set_as_it_is_now_and_learns_from_what_it_said():
    method = built(label_every=2, prototypes=False, jitter=0.0, noise=0.0)
    (stage,) = method.stages()
    assert stage.label_every == 2 and built().stages()[0].label is None
    x_t = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        method.S.network.segmentation_head[0].bias.copy_(torch.tensor([-99.0, 99.0]))
        (y,) = stage.label([x_t])
    assert (y == 1).all()  # what S says, not what T said before
    seen = Batch(torch.empty(0, 1, 32, 32), torch.empty(0, 32, 32, dtype=torch.int64), x_t, pseudo_t=1 - y)
    losses = method.step(seen, lambda name, loss, when=None: None)
    assert losses["L_pl"] > 100 and losses["counted"] == 1


def test_a_label_counts_where_all_views_agree():
    method = built(prototypes=False, uncertain=0.05)
    method.T.forward = answers([[9.0, 0.0, 0.0], [0.0, 9.0, 1.0]], [[9.0, 0.0, 1.0], [0.0, 9.0, 0.0]])
    y, m = method.label(torch.zeros(1, 1, 1, 3))
    assert y[0, 0, :2].tolist() == [0, 1] and m.tolist() == [[[True, True, False]]]


def test_a_label_counts_where_its_prototype_is_the_nearest():
    method = built(uncertain=0.05)
    # The last pixel is labelled 1, and so certain that it counts for its prototype; but it lies with those of class 0.
    said = [[9.0, 9.0, 0.0, 0.0, 8.0], [0.0, 0.0, 20.0, 20.0, 8.1]]
    method.T.forward = answers(said, said, said)
    y, m = method.label(torch.zeros(1, 1, 1, 5))
    assert y.tolist() == [[[0, 0, 1, 1, 1]]] and m.tolist() == [[[True, True, True, True, False]]]


def test_a_class_without_a_certain_pixel_has_no_prototype():
    features = torch.tensor([[0.0, 5.0], [1.0, 0.0]]).view(1, 2, 1, 2)
    labels, weight = torch.tensor([[[0, 1]]]), torch.tensor([[[1.0, 0.0]]])
    assert nearest(features, labels, weight).tolist() == [[[0, 0]]]


def test_what_does_not_count_is_not_learnt_from():
    method = built(uncertain=0.0)
    batch = Batch(torch.empty(0, 1, 32, 32), torch.empty(0, 32, 32, dtype=torch.int64), torch.rand(2, 1, 32, 32))
    losses = method.step(batch, lambda name, loss, when=None: None)
    assert losses["L_pl"] == 0 and losses["counted"] == 0


def test_a_view_of_nothing_changed_is_the_image():
    x = torch.rand(2, 1, 8, 8) - 0.5
    assert torch.equal(view(x, 0.0, 0.0), x)
    assert not torch.equal(view(x, 0.1, 0.0), x)
