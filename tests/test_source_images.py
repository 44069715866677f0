"""A method that declares that it uses no source image: none is read for its batches."""

import pytest
import torch

from attent_kit.data.prepared.augment import Augmentation
from attent_kit.data.prepared.batches import training_batches
from attent_kit.data.prepared.file import Prepared
from attent_kit.data.prepared.imageless import without_images
from attent_kit.plugins import load
from attent_kit.testing import check_alignment
from support.commands import train_words

METHOD = """
from attent_kit import hookimpl
from attentkit_builtin.alignments.source_only import SourceOnly


class Constant(SourceOnly):
    '''Learns from the labels of black slices.'''

    uses_source_images = False

    def segment(self, batch, update):
        assert batch.x_s.isnan().all() and (batch.y_s >= 0).all()
        return super().segment(batch._replace(x_s=batch.x_s.nan_to_num(-1.0)), update)


@hookimpl
def attentkit_alignments():
    return {"constant": Constant}
"""


def batch_of(source, resident):
    cpu = torch.device("cpu")
    return training_batches(source, source, Augmentation(), 0, cpu, False, resident).batch(3, 2)


@pytest.mark.parametrize("resident", [True, False])
def test_labels_come_as_they_would_and_images_are_nan_and_never_read(prepared, monkeypatch, resident):
    source = Prepared.open(prepared / "mr.h5")
    plain = batch_of(source, resident)
    asked, known = [], Prepared._data
    monkeypatch.setattr(Prepared, "_data", lambda self, case, name: asked.append(name) or known(self, case, name))
    imageless = without_images(source)
    batch = batch_of(imageless, resident)
    assert torch.equal(batch.y_s, plain.y_s) and batch.x_s.shape == plain.x_s.shape and batch.x_s.isnan().all()
    assert set(asked) == {"labels"}
    assert imageless.content_hash() == source.content_hash() and imageless.ids("test") == source.ids("test")


def test_training_gives_such_a_method_no_image(prepared, tmp_path, attentkit):
    file = tmp_path / "constant.py"
    file.write_text(METHOD)
    outcome = attentkit(*train_words(prepared, tmp_path / "run", "--plugin", file, alignment="constant"))
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "run" / "scores.csv").exists()


def test_a_method_that_looks_at_images_all_the_same_fails_its_checks():
    class Looks(load().registry.alignment("source_only")):
        """Trained on source images that it says it leaves alone."""

        uses_source_images = False

    with pytest.raises(AssertionError, match="nan|finite"):
        check_alignment(
            Looks, {"segmentor": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}, "segment_batch_size": 2}
        )
