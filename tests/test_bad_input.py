"""Whatever is wrong with the input ends in one sentence and an exit code, and leaves earlier results as they were."""

import shutil

import nibabel as nib
import numpy as np
import pytest
import torch

from support.cases import contents
from support.commands import prepare_words, says, train_words

# Words


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian"], "command ... 'trian' ... 'train'?"),
        (["train", "--epoch"], "No such option '--epoch'"),
        (["train", "--seed=-1"], "Invalid value for '--seed'"),
        (["prepare", "images", "--modality", "ct"], "Missing option '--out'"),
        (["prepare", "i", "-o", "o.h5", "--modality=ct", "--window", "0", "9", "--per-volume"], "exclude each other"),
        (["list", "segmentor"], "kind ... 'segmentor' ... 'segmentors'?"),
        (["show", "atent"], "'atent' ... 'attent'?"),
        (["compare", "phantm"], "'phantm' ... .toml ... 'phantom'?"),
        (["compare", "no.toml"], "no.toml: there is no such file"),
        (["train"], "method ... `attentkit train attent"),
        (["train", "attent"], "`--source mr.h5 --target ct.h5`"),
        (["train", "attent", "--source", "mr.h5"], "target ... --target FILE.h5"),
        (["train", "atent", "-s", "mr.h5", "-t", "ct.h5"], "alignment ... 'atent' ... 'attent'?"),
        (["train", "--config", "no.toml"], "no.toml: there is no such file"),
        (["train", "attent", "--data", "no.toml"], "no.toml: there is no such file"),
        (["predict", "no-run", "image.nii.gz", "out.nii.gz"], "no-run ... run"),
        (["phantom", "out", "--size", "smal"], "'smal' ... 'small'?"),
    ],
)
def test_words_that_cannot_be_run_end_in_2(attentkit, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    assert says(attentkit(*words), 2, sentence)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("segmentor.encodr=resnet18", "alignment.segmentor.encodr: ... 'encoder'?"),
        ("segmntor.encoder=resnet18", "alignment.segmntor: ... 'segmentor'? ... segment_steps"),
        ("segmentor=smpp", "alignment.segmentor: ... 'smpp' ... 'smp'?"),
        ("segmentor.encoder=resnet81", "'resnet81' ... 'resnet18'?"),
        ("segmentor.architecture=unett", "smp ... 'unett' ... 'unet'?"),
        ("segment_steps=many", "alignment.segment_steps: ... integer"),
        ("segment_steps=0", "alignment.segment_steps: ... 1, not 0"),
        ("augmentation.rotation=400", "augmentation.rotation: ... 180, not 400"),
        ("segment_steps", "--set segment_steps: ... option=value"),
        ("segmentor..encoder=a", "--set segmentor..encoder=a: ... option=value"),
    ],
)  # fmt: skip
def test_an_option_that_does_not_exist_or_fit_is_named_by_its_path(attentkit, prepared, tmp_path, option, sentence):
    assert says(attentkit(*train_words(prepared, tmp_path / "run", "--set", option)), 2, sentence)
    assert not (tmp_path / "run").exists()


def test_every_mistake_of_a_config_is_named_at_once(attentkit, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text('sed = 1\n[alignment]\nname = "attent"\nsegment_stps = 3\n[data]\nsource = "s"\ntarget = "t"\n')
    outcome = attentkit("train", "--config", config)
    assert says(outcome, 2, "sed: ... 'seed'?", "alignment.segment_stps: ... 'segment_steps'?")


@pytest.mark.parametrize("content", [b"a = [1,\n b", b"\xff\xfe"])
@pytest.mark.parametrize("words", [["train", "--config"], ["train", "attent", "--data"], ["compare"]])
def test_a_toml_file_that_does_not_parse_is_named(attentkit, tmp_path, words, content):
    (tmp_path / "bad.toml").write_bytes(content)
    assert says(attentkit(*words, tmp_path / "bad.toml"), 2, f"{tmp_path / 'bad.toml'}: cannot be read as TOML")


def test_a_device_that_is_none_is_refused(attentkit, prepared, tmp_path):
    words = train_words(prepared, tmp_path / "run")
    assert says(attentkit(*words, "--device", "nonsense"), 2, "--device nonsense: ... auto, cpu, cuda, cuda:N or mps")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_where_there_is_none_is_refused(attentkit, prepared, tmp_path, device):
    words = train_words(prepared, tmp_path / "run", "--device", device)
    assert says(attentkit(*words), 2, f"--device {device}: ... --device cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size", [10**7, 10**13])
def test_a_batch_that_fits_into_no_memory_is_refused_instead_of_killed(attentkit, prepared, tmp_path, size):
    words = train_words(prepared, tmp_path / "run", "--device", "cpu", "--set", f"segment_batch_size={size}")
    assert says(attentkit(*words), 1, f"'segment' ... {size} slices per step ... GB ... `attentkit show`")


# Volumes


def edited(change, dtype=np.float32):
    """Rewrites a NIfTI file with `change(array)` in place of its array."""

    def edit(path):
        image = nib.load(path)
        array = change(np.asanyarray(image.dataobj).copy()).astype(dtype)
        nib.save(nib.Nifti1Image(array, image.affine), path)

    return edit


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def shifted(path):
    image = nib.load(path)
    affine = image.affine.copy()
    affine[0, 3] += 2
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), affine), path)


def with_value(index, value):
    def change(array):
        array[index] = value
        return array

    return change


BAD_IMAGES = {
    "truncated": (truncated, "ends before its last voxel or is damaged"),
    "no NIfTI": (lambda path: path.write_text("hello"), "is not a readable NIfTI file"),
    "constant": (edited(lambda a: a * 0 + 7), "is constant, every voxel is 7"),
    "NaN": (edited(with_value((3, 3, 1), np.nan)), "NaN or infinite"),
    "4-D": (edited(lambda a: np.stack([a, a], -1)), "has 4 dimensions (32x32x4x2) where 3 are needed"),
}
BAD_LABELS = {
    "fewer voxels": (edited(lambda a: a[:-1], np.uint8), "31x32x4 voxels"),
    "other origin": (shifted, "is not on the grid of"),
    "stray value": (edited(with_value((0, 0, 0), 9), np.uint8), "holds the value 9, which the label map does not name"),
    "truncated": (truncated, "ends before its last voxel or is damaged"),
    "fractions": (edited(lambda a: a * 0.5), "holds values that are not integers"),
}


@pytest.fixture
def copied(volumes, tmp_path):
    """A copy of the CT volumes that a test may spoil."""
    return shutil.copytree(volumes / "ct", tmp_path / "ct")


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_a_bad_image_ends_prepare_and_predict_in_3(attentkit, copied, prepared, trained, tmp_path, kind):
    spoil, sentence = BAD_IMAGES[kind]
    image = copied / "images" / "ct_2.nii.gz"
    spoil(image)
    out = shutil.copy(prepared / "ct.h5", tmp_path / "ct.h5")
    before = contents(tmp_path)
    assert says(attentkit(*prepare_words(copied, out)), 3, str(image), sentence)
    assert says(attentkit("predict", trained, image, tmp_path / "p.nii.gz", "-d", "cpu"), 3, str(image), sentence)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("kind", BAD_LABELS)
def test_a_bad_label_map_ends_prepare_and_evaluate_in_3(attentkit, copied, volumes, prepared, tmp_path, kind):
    spoil, sentence = BAD_LABELS[kind]
    labels = copied / "labels" / "ct_2.nii.gz"
    spoil(labels)
    out = shutil.copy(prepared / "ct.h5", tmp_path / "ct.h5")
    before = contents(tmp_path)
    assert says(attentkit(*prepare_words(copied, out)), 3, "ct_2.nii.gz", sentence)
    truth = volumes / "ct" / "labels" / "ct_2.nii.gz"
    assert says(attentkit("evaluate", labels, truth, "--out", tmp_path / "s.csv"), 3, "ct_2.nii.gz", sentence)
    assert contents(tmp_path) == before


def test_an_empty_folder_and_a_missing_one_end_in_3(attentkit, trained, prepared, volumes, tmp_path):
    (tmp_path / "empty").mkdir()
    out = shutil.copy(prepared / "ct.h5", tmp_path / "ct.h5")
    before = contents(tmp_path)
    for place, sentence in (("empty", "holds no .nii or .nii.gz file"), ("missing", "does not exist")):
        folder = tmp_path / place
        for words in (
            ["prepare", folder, "--out", out, "--modality", "ct"],
            ["prepare", volumes / "ct" / "images", "--labels", folder, "--out", out, "--modality", "ct"],
            ["predict", trained, folder, tmp_path / "p", "-d", "cpu"],
            ["evaluate", folder, volumes / "ct" / "labels"],
        ):
            assert says(attentkit(*words), 3, f"{folder} {sentence}")
    assert contents(tmp_path) == before


def test_a_case_of_the_split_that_is_not_there_ends_in_2(attentkit, volumes, tmp_path):
    words = prepare_words(volumes / "ct", tmp_path / "ct.h5", "ct", "--test", "ct_9")
    assert says(attentkit(*words), 2, "'test' ... 'ct_9' ... 'ct_")
    assert not list(tmp_path.iterdir())


def test_a_phantom_is_not_written_over_other_files(attentkit, copied):
    before = contents(copied)
    assert says(attentkit("phantom", copied), 3, "phantom ... lost")
    assert contents(copied) == before


@pytest.mark.parametrize(
    ("image", "out", "sentence"),
    [
        ("ct/images", "ct/images", "is an input"),
        ("ct/images", "file", "file ... images holds 3 images"),
        ("ct/images/ct_1.nii.gz", "ct_1.png", "ct_1.png ... .nii.gz"),
    ],
)
def test_a_place_that_no_prediction_belongs_in_ends_in_2(attentkit, copied, trained, tmp_path, image, out, sentence):
    (tmp_path / "file").write_text("mine")
    before = contents(tmp_path)
    assert says(attentkit("predict", trained, tmp_path / image, tmp_path / out, "-d", "cpu"), 2, sentence)
    assert contents(tmp_path) == before
