"""Every file of weights is refused if one bit of what it holds has changed."""

import math
import os
import shutil
import zipfile

import numpy as np
import pytest
import torch

from attent_kit.engine.run.checkpoint import read, read_weights, write, write_weights
from attent_kit.engine.run.digest import digest
from attent_kit.engine.run.folder import RunFolder
from attent_kit.errors import RunError
from support.commands import says, train_words
from support.stand_in import greys, predict, save, stand_in_run, whole_run

TRANSLATE = [
    "--set=translate_steps=2", "--set=translator.width=4", "--set=translator.blocks=1", "--set=image_discriminator.width=4",
    "--set=image_discriminator.layers=1",
]  # fmt: skip


def flip(path, offset, bit=0):
    """Turn over one bit of a file."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(content)


def flip_a_weight(path):
    """The lowest bit of the last weight of some tensor: of a checkpoint in its zip, of safetensors at the end of the file."""
    if not zipfile.is_zipfile(path):
        return flip(path, len(path.read_bytes()) - 4)
    with zipfile.ZipFile(path) as file:
        largest = max((e for e in file.infolist() if "/data/" in e.filename), key=lambda entry: entry.file_size)
    content = path.read_bytes()
    name, extra = (int.from_bytes(content[largest.header_offset + at :][:2], "little") for at in (26, 28))
    return flip(path, largest.header_offset + 30 + name + extra + largest.file_size - 4)


def test_a_digest_is_that_of_values_and_not_of_how_they_lie_in_memory():
    x = torch.arange(24.0).reshape(2, 3, 4)
    same = x.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert same.stride() != x.stride()
    assert digest({"a": x, "b": [1, 2.5, None]}) == digest({"b": (1, 2.5, None), "a": same})


@pytest.mark.parametrize(
    "other",
    [
        {"a": torch.tensor([1.0, 2.0]), "b": 2},
        {"a": torch.tensor([1.0, math.nextafter(2.0, 3.0)], dtype=torch.float64), "b": 1},
        {"a": torch.tensor([[1.0, 2.0]]), "b": 1},
        {"a": torch.tensor([1.0, 2.0]).view(torch.int32), "b": 1},
        {"a": torch.tensor([1.0, 2.0]), "c": 1},
        {"a": torch.tensor([1.0, 2.0]), "b": "1"},
        {"a": [1.0, 2.0], "b": 1},
        {"a": torch.tensor([1.0, 2.0]), "b": [1]},
    ],
)
def test_what_differs_has_another_digest(other):
    assert digest(other) != digest({"a": torch.tensor([1.0, 2.0]), "b": 1})


def test_every_kind_of_tensor_can_be_signed():
    kinds = (torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool)
    assert len({digest(torch.ones(2, dtype=kind)) for kind in kinds}) == len(kinds)
    assert digest(torch.tensor(1.0)) != digest(torch.ones(1)) != digest(torch.ones(0))


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_anywhere_changes_nothing_that_is_loaded_or_is_refused(tmp_path, seed):
    """Some bits of a file are padding, or times in its zip: then everything that is loaded is as it was."""
    rng = np.random.default_rng(seed)
    weights = {"w": torch.arange(40.0), "b": torch.ones(3)}
    checkpoint, exported = tmp_path / "c.ckpt", tmp_path / "s.safetensors"
    write(checkpoint, {"step": 7, "networks": {"S": weights}, "optimizers": {}})
    write_weights(exported, weights, {"network": "S", "steps": 7})
    wholes = digest(read(checkpoint)), digest(read_weights(exported))
    for path, reader, whole in ((checkpoint, read, wholes[0]), (exported, read_weights, wholes[1])):
        flip(path, int(rng.integers(path.stat().st_size)), int(rng.integers(8)))
        try:
            assert digest(reader(path)) == whole
        except RunError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("name", ["segmentor.safetensors", "checkpoint.ckpt"])
def test_a_flipped_weight_ends_predict_in_a_sentence_that_names_the_file(tmp_path, name):
    image = save(tmp_path / "image.nii.gz", greys(), np.eye(4))
    run = (whole_run if name.endswith("ckpt") else stand_in_run)(tmp_path / "run", 12)
    predict(run, image, tmp_path / "before.nii.gz")
    flip_a_weight(run / name)
    with pytest.raises(RunError, match=f"{name} has changed since it was written: .* Copy"):
        predict(run, image, tmp_path / "after.nii.gz")
    assert not (tmp_path / "after.nii.gz").exists()


def test_a_flipped_weight_of_a_snapshot_is_not_graded(attentkit, prepared, tmp_path):
    folder = tmp_path / "run"
    words = [word.replace("segment_steps=3", "segment_steps=4") for word in train_words(prepared, folder)]
    assert attentkit(*words, "--set", "snapshots=2").code == 0
    flip_a_weight(RunFolder(folder).snapshot(2))
    assert says(attentkit("select", folder), 1, f"{RunFolder(folder).snapshot(2)} is missing or damaged")
    assert not (folder / "grades.csv").exists()


def test_a_flipped_weight_of_a_shared_stage_is_not_taken_over(attentkit, prepared, suite, tmp_path):
    out = tmp_path / "out"
    words = ["compare", suite, "--out", out, "-d", "cpu", "--seeds", "0", "--directions", "mr2ct", "--no-report"]
    words += ["--alignments", "attent"]
    assert attentkit(*words).code == 0
    (shared,) = (out / "shared").rglob("*.ckpt")
    (run,) = (path.parent for path in out.glob("*/*/seed0*/config.toml"))
    flip_a_weight(shared)
    shutil.rmtree(run)
    outcome = attentkit(*words)
    assert outcome.code == 1 and f"{shared} has changed since it was written" in outcome.err
    shared.unlink()
    assert attentkit(*words).code == 0


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_exported_weights_may_be_read_by_whom_the_umask_lets(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_weights(tmp_path / "s.safetensors", {"w": torch.ones(2)}, {})
    finally:
        os.umask(before)
    assert (tmp_path / "s.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask
