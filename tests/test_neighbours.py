"""Slices with their neighbours as channels (2.5-D), asked of a run on files that were prepared with one."""

import json
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch

from attent_kit.cli import run
from attent_kit.config import read_toml, validate
from attent_kit.data.prepared.file import Prepared
from attent_kit.data.prepared.imageless import without_images
from attent_kit.engine.apply.model import open_model
from attent_kit.engine.compare.content import located
from attent_kit.engine.compare.price import seen_by_networks
from attent_kit.engine.compare.suite import Suite, expand
from attent_kit.engine.jobs.plan import shapes
from attent_kit.engine.publish.made import prepared_of
from attent_kit.errors import ConfigError
from attent_kit.files import read_signed
from attent_kit.mixing import painted
from support.commands import TINY, prepare_words, says, train_words
from support.small_runs import REGISTRY, equal, weights

ATTENT = [
    f"--set={option}"
    for option in (
        "translate_steps=2", "translator.width=4", "translator.blocks=1", "image_discriminator.width=4",
        "image_discriminator.layers=1", "entropy_discriminator.width=4", "pool=2", "segmentor.decoder_channels=[8,8,8]",
        "snapshots=2",
    )
]  # fmt: skip


@pytest.fixture(scope="module")
def stacked(prepared, tmp_path_factory):
    """A run of AttENT that sees three slices at once."""
    folder = tmp_path_factory.mktemp("stacked") / "mr2ct" / "attent" / "seed0"
    assert run(train_words(prepared, folder, "--channels", 3, *ATTENT, alignment="attent")) == 0
    return folder


@pytest.fixture(scope="module")
def alone(prepared, tmp_path_factory):
    """A run of one network that sees three slices at once."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert run(train_words(prepared, folder, "--channels", 3)) == 0
    return folder


# The file


@pytest.fixture(scope="module")
def scarce(volumes, tmp_path_factory):
    """MR whose source side leaves out slices without an organ."""
    out = tmp_path_factory.mktemp("scarce") / "mr.h5"
    assert run(prepare_words(volumes / "mr", out, "mr", "--foreground-only")) == 0
    return Prepared.open(out)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_neighbours_are_those_of_the_volume_though_some_slices_are_left_out(scarce, channels):
    seen, ids = scarce.with_channels(channels), scarce.ids("train")
    left_out = {*seen.case(ids[0]).kept} - {*seen.case(ids[0]).with_organ}
    assert left_out, "the volume has no slice without an organ"
    alone = scarce.slices(ids[0])[:, 0]
    images = seen.images(ids, as_source=True)
    assert images.shape[1] == channels
    for (case, z), image in zip(seen.index(ids, as_source=True), images, strict=True):
        around = [min(max(z + d, 0), len(alone) - 1) for d in range(-(channels // 2), channels // 2 + 1)]
        assert (
            case == ids[0] and np.array_equal(image, alone[around]) and np.array_equal(image, seen.image_row(case, z))
        )
    slices, rows = seen.stacks(ids, as_source=True)
    assert np.array_equal(slices[rows], images)
    assert len(slices) == len(np.unique(rows)) <= len(alone), "a slice is kept twice"


def test_the_file_stays_as_it_is_and_other_channels_are_other_data(scarce):
    before = scarce.content_hash()
    three = scarce.with_channels(3)
    assert three.channels == 3 and three.content_hash() != before
    assert scarce.with_channels(1) is scarce and scarce.with_channels(None) is scarce
    assert scarce.channels == 1 and scarce.content_hash() == before == Prepared.open(scarce.path).content_hash()


def test_a_method_without_images_gets_nan_in_every_channel(scarce):
    slices, rows = without_images(scarce.with_channels(3)).stacks(scarce.ids("train"), as_source=True)
    assert np.isnan(slices[rows]).all()
    assert slices[rows].shape == (len(scarce.index(scarce.ids("train"), as_source=True)), 3, 32, 32)


# A run


def test_a_run_on_a_plain_file_ends_in_the_bits_of_one_on_a_file_prepared_so(
    volumes, prepared, alone, tmp_path, attentkit
):
    for modality in ("mr", "ct"):
        words = prepare_words(volumes / modality, tmp_path / f"{modality}.h5", modality, "--channels", 3)
        assert attentkit(*words).code == 0
    assert attentkit(*train_words(tmp_path, tmp_path / "run")).code == 0
    assert equal(weights(alone)["networks"], weights(tmp_path / "run")["networks"])
    assert (alone / "scores.csv").read_bytes() == (tmp_path / "run/scores.csv").read_bytes()
    hashes = [read_toml(folder / "config.toml")["data"]["target_hash"] for folder in (alone, tmp_path / "run")]
    assert hashes[0] == hashes[1]
    # And one on such a file that asks for a single slice is that of the plain file.
    assert attentkit(*train_words(tmp_path, tmp_path / "one", "--channels", 1)).code == 0
    assert attentkit(*train_words(prepared, tmp_path / "plain")).code == 0
    assert equal(weights(tmp_path / "one")["networks"], weights(tmp_path / "plain")["networks"])


def test_the_run_predicts_images_and_goes_into_files_for_others(stacked, volumes, tmp_path, attentkit):
    assert read_signed(stacked / "domain.json")["channels"] == 3
    image = volumes / "ct" / "images" / "ct_3.nii.gz"
    assert attentkit("predict", stacked, image, tmp_path / "l.nii.gz", "--translation", "-d", "cpu").code == 0
    found = nib.load(tmp_path / "l.nii.gz")
    kept = nib.load(stacked / "predictions" / "ct_3.nii.gz")
    assert np.array_equal(found.dataobj, kept.dataobj) and found.shape == nib.load(image).shape
    assert nib.load(tmp_path / "l_translation.nii.gz").shape == found.shape
    assert attentkit("pack", stacked, tmp_path / "run.zip").code == 0
    packed = open_model(tmp_path / "run.zip", REGISTRY, "cpu").predict(image)
    assert np.array_equal(packed.labels.dataobj, found.dataobj)


def test_the_run_is_exported_with_as_many_channels(alone, tmp_path, attentkit):
    pytest.importorskip("onnxruntime")
    assert attentkit("export", alone, tmp_path / "m.onnx").code == 0
    facts = json.loads((tmp_path / "m.json").read_text())
    assert facts["input"]["shape"] == ["batch", 3, 32, 32] and "neighbouring" in facts["input"]["channels"]


def test_selection_audit_and_shift_look_at_it(stacked, prepared, tmp_path, attentkit):
    selected = attentkit(
        *train_words(prepared, stacked, "--channels", 3, *ATTENT, "--select", "entropy", alignment="attent")
    )
    assert selected.code == 0, selected.err
    for words in (
        ["audit", stacked],
        ["shift", stacked],
        ["shift", prepared / "mr.h5", prepared / "ct.h5", "--run", stacked],
    ):
        outcome = attentkit(*words, "-d", "cpu")
        assert outcome.code == 0, outcome.err


def test_a_run_goes_on_as_it_began_and_never_with_other_channels(stacked, prepared, attentkit):
    words = ["train", "--config", stacked / "config.toml", "-d", "cpu", "-o", stacked]
    assert attentkit(*words).code == 0
    assert attentkit(*words, "--channels", 3).code == 0
    assert says(attentkit(*words, "--channels", 1), 2, "-channels = 3", "+channels = 1", "another folder")
    plain = train_words(prepared, stacked, *ATTENT, alignment="attent")
    assert says(attentkit(*plain), 2, "-channels = 3", '+channels = "as prepared"')


@pytest.mark.parametrize("channels", [2, 257])
def test_what_has_no_middle_is_refused_with_what_to_write(channels, prepared, tmp_path, attentkit):
    outcome = attentkit(*train_words(prepared, tmp_path / "run", "--channels", channels))
    assert says(outcome, 2, "data.channels", str(channels), "odd number", "as in 3")
    assert not (tmp_path / "run").exists()


def test_files_of_different_channels_go_together_once_it_is_said_for_both(volumes, prepared, tmp_path, attentkit):
    assert attentkit(*prepare_words(volumes / "ct", tmp_path / "ct.h5", "ct", "--channels", 3)).code == 0
    domains = ["-s", prepared / "mr.h5", "-t", tmp_path / "ct.h5"]
    words = ["train", "source_only", *domains, "-d", "cpu", "-o", tmp_path / "run", *TINY]
    assert says(attentkit(*words), 3, "differ in channels: 1 and 3", "--channels")
    assert attentkit(*words, "--channels", 3).code == 0


# A comparison

ROWS = [
    {"label": "W/o", "alignment": "source_only"},
    {"label": "W/o, one slice", "alignment": "source_only", "channels": 1},
]
OPTIONS = {
    "segmentor": {"encoder": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [8, 8, 8]},
    "segment_steps": 2,
    "segment_batch_size": 2,
}


def suite_of(prepared, rows=ROWS, **more):
    domains = {name: str(prepared / f"{name}.h5") for name in ("mr", "ct")}
    given = {"name": "s", "directions": ["mr2ct"], "rows": rows, "domains": domains, "options": OPTIONS, **more}
    return validate(Suite, given, REGISTRY)


def test_rows_of_one_and_of_three_slices_stand_in_one_comparison(prepared, tmp_path):
    suite = suite_of(prepared, channels=3)
    cells = located(expand(suite, REGISTRY, suite.domains, tmp_path), REGISTRY)
    assert [seen_by_networks(suite, cell)[0].channels for cell in cells] == [3, 1]
    assert [cell.settings.data.channels for cell in cells] == [3, 1]
    assert {*shapes(suite, cells, REGISTRY)} == {"W/o", "W/o, one slice"}
    plain = suite_of(prepared)
    before = expand(plain, REGISTRY, plain.domains, tmp_path)[0]
    assert "channels" not in before.settings.model_dump(exclude_none=True)["data"]
    assert seen_by_networks(suite_of(prepared, domains={}, phantom={"size": "small"}), cells[0])[0].channels == 3


def test_the_command_gives_them_to_every_row_without_its_own(prepared, tmp_path, attentkit):
    rows = "".join(
        f'[[rows]]\nlabel = "{row["label"]}"\nalignment = "source_only"\n'
        + (f"channels = {row['channels']}\n" if "channels" in row else "")
        for row in ROWS
    )
    head = f'name = "s"\ndirections = ["mr2ct"]\n[domains]\nmr = "{prepared}/mr.h5"\nct = "{prepared}/ct.h5"\n'
    (tmp_path / "s.toml").write_text(
        f"{head}[options]\nsegment_steps = 2\nsegment_batch_size = 2\nsegmentor = "
        f'{{ encoder = "tu-test_resnet", encoder_depth = 3, decoder_channels = [8, 8, 8] }}\n{rows}'
    )
    words = ["compare", tmp_path / "s.toml", "-d", "cpu", "-o", tmp_path / "out"]
    assert says(attentkit(*words, "--channels", 4), 2, "4 slices", "odd number")
    assert attentkit(*words, "--channels", 3, "--no-report").code == 0
    seen = [
        read_signed(tmp_path / "out/mr2ct" / row / "seed0/domain.json")["channels"] for row in ("w-o", "w-o-one-slice")
    ]
    assert seen == [3, 1]
    data = {"data": read_toml(tmp_path / "out/mr2ct/w-o/seed0/config.toml")["data"]}
    shown = SimpleNamespace(direction="mr2ct", config=data)
    assert prepared_of([shown], "mr2ct", "target", tmp_path / "out").channels == 3
    # Without it the first row is another run, which lies beside, and the second is the same.
    assert attentkit(*words, "--no-report").code == 0
    assert len([*(tmp_path / "out/mr2ct/w-o").glob("seed0*")]) == 2
    assert len([*(tmp_path / "out/mr2ct/w-o-one-slice").glob("seed0*")]) == 1


def test_a_row_cannot_start_from_one_that_sees_another_number(prepared, tmp_path):
    suite = suite_of(prepared, [{**ROWS[0], "start": "W/o, one slice"}, ROWS[1]], channels=3)
    with pytest.raises(ConfigError, match="'W/o'.*'W/o, one slice'.*same channels"):
        expand(suite, REGISTRY, suite.domains, tmp_path)


def test_label_maps_of_others_have_no_channels(prepared):
    external = {"label": "Tool", "predictions": "folder", "channels": 3}
    with pytest.raises(ConfigError, match="leave out its channels"):
        suite_of(prepared, [*ROWS, external])


# What methods draw


def test_all_channels_of_an_image_are_painted_by_one_network_each_by_itself():
    x = torch.rand(2, 1, 24, 24) * 2 - 1
    torch.manual_seed(3)
    alone = painted(x, 4, 2)
    torch.manual_seed(3)
    alike = painted(x.repeat(1, 3, 1, 1), 4, 2)
    assert torch.allclose(alike, alone.repeat(1, 3, 1, 1), atol=1e-5)
    between = torch.cat([torch.rand(2, 1, 24, 24), x, torch.rand(2, 1, 24, 24)], 1)
    torch.manual_seed(3)
    other = painted(between, 4, 2)
    scale = other[:, 1:2].flatten(1).norm(dim=1) / alone.flatten(1).norm(dim=1)
    assert torch.allclose(other[:, 1:2], alone * scale.view(2, 1, 1, 1), atol=1e-5)
