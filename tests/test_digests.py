"""Every file of weights is refused if one bit of what it holds has changed."""

import math
import os
import shutil
import zipfile

import numpy as np
import pytest
import torch

from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.run.checkpoint import read, read_weights, write, write_weights
from attent_kit.engine.run.digest import digest
from attent_kit.engine.run.folder import RunFolder
from attent_kit.errors import ConfigError, DataError, RunError
from attent_kit.files import read_signed, write_signed
from support.commands import prepare_words, says, train_words
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


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("name", "before", "after", "words"),
    [
        ("domain.json", '"high": 200.0', '"high": 300.0', "domain.json is missing or damaged"),
        ("domain.json", '"middle"', '"muddle"', "domain.json is missing or damaged"),
        ("config.toml", "seed = 3", "seed = 2", "config.toml"),
    ],
)
def test_a_flipped_bit_beside_the_weights_that_still_parses_changes_no_label(
    tmp_path, whole, name, before, after, words
):
    image = save(tmp_path / "image.nii.gz", greys(), np.eye(4))
    run = (whole_run if whole else stand_in_run)(tmp_path / "run", 12)
    predict(run, image, tmp_path / "before.nii.gz")
    text = (run / name).read_text()
    assert text.count(before) == 1
    (run / name).write_text(text.replace(before, after))
    with pytest.raises((RunError, ConfigError), match=words):
        predict(run, image, tmp_path / "after.nii.gz")
    assert not (tmp_path / "after.nii.gz").exists()


def test_another_bit_of_a_signed_file_is_none(tmp_path):
    path = tmp_path / "facts.json"
    write_signed(path, {"a": [1.5, None, "\u00e9"], "b": {"c": True}})
    assert read_signed(path) == {"a": [1.5, None, "\u00e9"], "b": {"c": True}}
    text = path.read_text()
    for changed in (text.replace("1.5", "1.4"), text.replace("true", "false"), "{}", "[]", text[:-4], '{"digest": 3}'):
        path.write_text(changed)
        assert read_signed(path) is None
    assert read_signed(tmp_path / "missing.json") is None


def test_the_checkpoint_of_a_trained_run_knows_its_config(attentkit, own_run, volumes, tmp_path):
    config = own_run / "config.toml"
    text = config.read_text()
    config.write_text(text.replace("segment_steps = ", "segment_steps = 1"))
    for words in (
        ["predict", own_run, volumes / "ct" / "images", tmp_path / "p", "-d", "cpu"],
        ["train", own_run, "--more-steps", 1, "-d", "cpu", "-o", tmp_path / "longer"],
    ):
        assert says(attentkit(*words), 1, "config.toml is not what", "checkpoint.ckpt was trained with")
    assert not (tmp_path / "p").exists()
    moved = text.replace('source = "', 'source = "/moved')
    config.write_text(moved)
    assert moved != text
    assert attentkit("predict", own_run, volumes / "ct" / "images", tmp_path / "p", "-d", "cpu").code == 0


def test_a_manifest_of_which_a_digit_is_another_is_refused_and_may_be_prepared_again(attentkit, volumes, tmp_path):
    words = prepare_words(volumes / "ct", tmp_path / "ct.h5")
    assert attentkit(*words).code == 0
    content = (tmp_path / "ct.h5").read_bytes()
    assert content.count(b'"low": -125.0') >= 1
    (tmp_path / "ct.h5").write_bytes(content.replace(b'"low": -125.0', b'"low": -121.0'))
    assert "its manifest has changed since it was written" in " ".join(
        attentkit("check", tmp_path / "ct.h5").out.split()
    )
    with pytest.raises(DataError, match="ct.h5 is damaged: its manifest has changed"):
        Prepared.open(tmp_path / "ct.h5")
    assert attentkit(*words).code == 0 and Prepared.open(tmp_path / "ct.h5").intensity.low == -125


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
