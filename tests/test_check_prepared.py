"""`attentkit check` of prepared files: splits, constants, the manifest beside them, and two of them together."""

import json
import os
import shutil

import h5py
import numpy as np
import pytest

from attent_kit.cli import run
from attent_kit.data.check.prepared import differing
from attent_kit.data.prepared.distances import stretched
from attent_kit.data.prepared.file import IN_MANIFEST, IN_RECORD, Prepared
from attent_kit.data.prepared.hdf5 import put_text
from attent_kit.errors import DataError
from support.abdomens import abdomen, checked, only, patients, write
from support.cases import contents
from support.layout_folders import write_phantoms
from support.messages import quotes

SPLIT = {"train": (1, 2, 3, 4), "val": (5,), "test": (6,)}


def prepare(folder, out, modality, *words, splits=SPLIT):
    """`prepare` at 48 pixels; cases of each split by number."""
    lists = [f"--{name}={','.join(f'{modality}_{n}' for n in numbers)}" for name, numbers in splits.items()]
    line = ["prepare", folder, "--modality", modality, "--size", 48, "--out", out, *lists, *words]
    assert run([str(word) for word in line]) == 0
    return out


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """ct and mr, six patients each, and ct.h5 and mr.h5 of them."""
    home = tmp_path_factory.mktemp("sound")
    for modality in ("ct", "mr"):
        prepare(patients(home / modality, modality, 6), home / f"{modality}.h5", modality)
    return home


@pytest.fixture
def own(sound, tmp_path):
    """A copy of ct.h5 and mr.h5 with their manifests, to spoil."""
    for name in ("ct.h5", "ct.toml", "mr.h5", "mr.toml"):
        shutil.copy(sound / name, tmp_path / name)
    return tmp_path


def edit(path, change, beside=True):
    """Changes the manifest in a prepared file, and writes the one beside it anew."""
    from attent_kit.data.prepared.manifest import to_toml

    with h5py.File(path, "r+") as file:
        manifest = json.loads(file["manifest"][()])
        change(manifest)
        put_text(file, "manifest", json.dumps(manifest))
    if beside:
        path.with_suffix(".toml").write_text(to_toml(manifest), encoding="utf-8")


def record(manifest, case):
    return next(r for r in manifest["cases"] if r["id"] == case)


def test_sound_files_give_nothing_and_are_left_alone(attentkit, own):
    before = contents(own)
    found = checked(attentkit, own / "ct.h5", own / "mr.h5", "--target", own / "ct.h5")
    assert found.findings == [] and found.code == 0 and contents(own) == before


@pytest.mark.parametrize("layout", ["chaos", "nnunet"])
def test_a_sound_phantom_that_was_prepared_gives_neither_error_nor_warning(attentkit, tmp_path, layout):
    pytest.importorskip("pydicom")
    write_phantoms(tmp_path, layouts=[layout])
    place, words = {"chaos": ("", ["--part", "ct"]), "nnunet": ("Dataset002_PhantomMR", ["--channels", 3])}[layout]
    line = ["prepare", tmp_path / layout / place, "--out", tmp_path / "x.h5", "--size", 32, *words]
    assert attentkit(*line).code == 0
    found = checked(attentkit, tmp_path / "x.h5")
    assert found.serious == [] and found.findings, "notes: the liver alone is labelled, or no case is for testing"


# Splits


def test_test_cases_in_training_or_validation_are_errors(attentkit, sound, tmp_path):
    splits = {"train": (1, 2, 3), "val": (3, 4), "test": (2, 4, 5, 6)}
    found = checked(attentkit, prepare(sound / "ct", tmp_path / "ct.h5", "ct", splits=splits))
    told = found.about("splits")
    assert [severity for severity, _, _ in told] == ["error", "error", "warning"]
    for (_, _, evidence), words in zip(told, ("ct_2 test train", "ct_4 test val", "ct_3 train val"), strict=True):
        assert quotes(evidence, *words.split())


def test_no_case_for_training_is_an_error_and_none_for_testing_a_note(attentkit, sound, tmp_path):
    path = prepare(sound / "ct", tmp_path / "ct.h5", "ct", splits={"train": (), "val": (), "test": (1, 2)})
    found = checked(attentkit, path)
    (worse, _, train), (better, _, val) = found.about("splits")
    assert (worse, better) == ("error", "note") and train.endswith(" in train") and val.endswith(" in val")


# Labels that chose slices


def test_foreground_only_is_a_note_on_a_source_and_an_error_on_a_target(attentkit, sound, tmp_path):
    path = prepare(sound / "mr", tmp_path / "mr.h5", "mr", "--foreground-only")
    bodies = [abdomen("mr", n).labels for n in SPLIT["train"]]
    chosen, slices = sum(b.any((0, 1)).sum() for b in bodies), sum(b.shape[2] for b in bodies)
    for words, severity in (([], "note"), (["--target", path], "error")):
        ((how_bad, _, evidence),) = checked(attentkit, path, *words).about("label-driven")
        assert how_bad == severity and f" {chosen} of {slices} training slices" in evidence


def test_slices_of_a_test_case_that_labels_have_chosen_are_an_error(attentkit, own):
    edit(own / "ct.h5", lambda manifest: record(manifest, "ct_6").update(without_organ=[0, 1]))
    found = checked(attentkit, own / "ct.h5")
    assert " in test" in {case: evidence for _, case, evidence in found.about("label-driven")}["ct_6"]


def test_a_target_of_labelled_slices_only_is_an_error(attentkit, tmp_path):
    for n in range(1, 7):
        body = abdomen("ct", n)
        kept = body.labels.any((0, 1))
        write(tmp_path / "ct", f"ct_{n}", body._replace(image=body.image[..., kept], labels=body.labels[..., kept]))
    path = prepare(tmp_path / "ct", tmp_path / "ct.h5", "ct")
    count = sum(abdomen("ct", n).labels.any((0, 1)).sum() for n in range(1, 7))
    for words, severity in (([], "warning"), (["--target", path], "error")):
        ((how_bad, _, evidence),) = checked(attentkit, path, *words).about("label-driven")
        assert how_bad == severity and quotes(evidence, f"{count} of {count} slices", "6 case")


# Constants


def test_constants_are_measured_on_training_cases_and_the_file_says_so(attentkit, own):
    with h5py.File(own / "mr.h5") as file:
        manifest = json.loads(file["manifest"][()])
    assert manifest["measured_on"] == ["mr_1", "mr_2", "mr_3", "mr_4"]
    with h5py.File(own / "ct.h5") as file:
        assert json.loads(file["manifest"][()])["measured_on"] == []


def test_constants_of_other_cases_are_told(attentkit, own):
    edit(own / "mr.h5", lambda m: m.update(measured_on=["mr_1", "mr_5", "mr_6"]))
    ((severity, _, evidence),) = checked(attentkit, own / "mr.h5").about("intensity")
    assert severity == "error" and quotes(evidence, "not in train: mr_5, mr_6")


def test_constants_of_cases_that_are_tested_too_are_an_error(attentkit, sound, tmp_path):
    path = prepare(sound / "mr", tmp_path / "mr.h5", "mr", splits={"train": (1, 2), "test": (2, 3)})
    assert quotes(checked(attentkit, path).about("intensity")[0][2], "in val or test", ": mr_2")


@pytest.mark.parametrize("factor", [0.25, 4])
def test_constants_that_do_not_fit_the_training_cases_are_a_warning(attentkit, sound, tmp_path, factor):
    """Measured on a scanner whose grey values are a quarter, or four times as large."""
    with h5py.File(sound / "mr.h5") as file:
        grey = json.loads(file["manifest"][()])["intensity"]
    low, high = grey["low"], grey["low"] + factor * (grey["high"] - grey["low"])
    path = prepare(sound / "mr", tmp_path / "mr.h5", "mr", "--window", low, high)
    edit(path, lambda m: m["intensity"].update(kind="percentiles"))
    evidence = only(checked(attentkit, path), "intensity", "warning")
    assert quotes(evidence, "% of the training slices", f"({low:g} to {high:g})")


# The manifest beside it, and damage


def test_a_manifest_that_says_something_else_is_an_error(attentkit, own):
    toml = own / "mr.toml"
    toml.write_text(toml.read_text().replace('modality = "mr"', 'modality = "t1"').replace("size = 48", "size = 256"))
    found = checked(attentkit, own / "mr.h5")
    # Both are options, too.
    assert quotes(only(found, "manifest", "error"), "modality = 't1'", "mr.h5 says 'mr'", "3 more")
    assert found.findings[0]["file"] == str(toml)
    toml.write_text("= no TOML")
    assert "TOML" in only(checked(attentkit, own / "mr.h5"), "manifest", "error")
    toml.unlink()
    found = checked(attentkit, own / "mr.h5")
    assert found.serious == [] and "no mr.toml" in found.about("manifest")[0][2]


def test_the_manifest_of_another_file_is_an_error(attentkit, own):
    shutil.copy(own / "ct.toml", own / "mr.toml")
    found = checked(attentkit, own / "mr.h5")
    assert quotes(only(found, "manifest", "error"), "domain = 'ct'", "mr.h5 says 'mr'", " more")


def test_documents_differ_by_dotted_names():
    inside = {"a": {"b": [1, 2], "c": "x"}, "d": 1}
    assert differing(inside, {"a": {"b": [1, 2], "c": "x"}, "d": 1}) == []
    assert differing(inside, {"a": {"b": [1, 3], "c": "x"}, "e": 2}) == [
        ("a.b[1]", 2, 3),
        ("d", 1, None),
        ("e", None, 2),
    ]
    assert differing([1], [1, 2], "n") == [("n", [1], [1, 2])]


def test_voxels_that_were_changed_are_an_error(attentkit, own):
    with h5py.File(own / "ct.h5", "r+") as file:
        file["cases/ct_3/images"][5, 5, 5] = -0.25
    assert "hash" in only(checked(attentkit, own / "ct.h5"), "content", "error", "ct_3")


@pytest.mark.parametrize(
    ("name", "value", "check", "words"),
    [
        ("images", np.nan, "grey values", ("1 voxels", "-1 and 1")),
        ("images", 1.5, "grey values", ("1 voxels", "-1 and 1")),
        ("labels", 9, "label values", ("class 9", "4 organs")),
    ],
)
def test_values_that_no_prepared_file_has_are_errors(attentkit, own, name, value, check, words):
    with h5py.File(own / "ct.h5", "r+") as file:
        file[f"cases/ct_3/{name}"][5, 5, 5] = value
    ((severity, case, evidence),) = checked(attentkit, own / "ct.h5").about(check)
    assert (severity, case) == ("error", "ct_3") and quotes(evidence, *words)


@pytest.mark.parametrize("where", ["images", "labels"])
def test_a_damaged_case_is_told_and_the_others_are_looked_at(attentkit, own, where):
    with h5py.File(own / "ct.h5", "r+") as file:
        offset = file[f"cases/ct_2/{where}"].id.get_chunk_info(3).byte_offset
        del file["cases/ct_4/labels"]
    with open(own / "ct.h5", "r+b") as raw:
        raw.seek(offset)
        raw.write(os.urandom(40))
    found = checked(attentkit, own / "ct.h5")
    assert [(s, case) for s, case, _ in found.about("unreadable")] == [("error", "ct_2"), ("error", "ct_4")]


@pytest.mark.parametrize("key", IN_MANIFEST)
def test_a_manifest_that_lacks_something_is_one_error_and_nonsense_no_traceback(attentkit, own, key):
    edit(own / "ct.h5", lambda manifest: manifest.pop(key))
    evidence = only(checked(attentkit, own / "ct.h5", own / "mr.h5"), "unreadable", "error")
    assert key == "format" or f"lacks '{key}'" in evidence
    edit(own / "mr.h5", lambda manifest: manifest.update({key: "nonsense"}))
    checked(attentkit, own / "ct.h5", own / "mr.h5")


@pytest.mark.parametrize("key", IN_RECORD)
def test_a_record_that_lacks_something_is_one_error_and_nonsense_no_traceback(attentkit, own, key):
    edit(own / "ct.h5", lambda manifest: record(manifest, "ct_2").pop(key))
    assert f"lacks '{key}'" in only(checked(attentkit, own / "ct.h5"), "unreadable", "error")
    edit(own / "mr.h5", lambda manifest: record(manifest, "mr_2").update({key: "nonsense"}))
    checked(attentkit, own / "mr.h5")


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("measured_on", lambda manifest: manifest.update(measured_on=None)),
        ("grey", lambda manifest: record(manifest, "ct_2").update(grey=None)),
        ("grey", lambda manifest: record(manifest, "ct_2")["grey"]["percentiles"].pop()),
        ("low", lambda manifest: record(manifest, "ct_2").update(low=None)),
        ("low", lambda manifest: record(manifest, "ct_2").update(low=5.0, high=5.0)),
    ],
)
def test_what_grey_values_are_measured_by_is_believed_only_as_prepare_writes_it(own, key, change):
    edit(own / "ct.h5", change, beside=False)
    with pytest.raises(DataError, match=f"'{key}'.*`attentkit prepare` again"):
        Prepared.open(own / "ct.h5")


def test_a_prepared_file_says_what_it_must_and_no_more(sound):
    manifest = Prepared.open(sound / "mr.h5").manifest
    assert set(manifest) == set(IN_MANIFEST)
    assert all(set(each) == {*IN_RECORD, "truth"} for each in manifest["cases"])


def test_what_is_no_prepared_file_is_an_error(attentkit, own):
    whole = (own / "ct.h5").read_bytes()
    (own / "ct.h5").write_bytes(whole[: len(whole) // 2])
    found = checked(attentkit, own / "ct.h5", own / "mr.h5")
    assert "prepared domain" in only(found, "unreadable", "error")


def test_what_prepare_has_doubted_is_told_again(attentkit, tmp_path):
    patients(tmp_path / "mr", "mr", 6)
    body = abdomen("mr", 2)
    write(tmp_path / "mr", "mr_2", body._replace(image=body.image[::-1], labels=body.labels[::-1]), qform=0, sform=0)
    found = checked(attentkit, prepare(tmp_path / "mr", tmp_path / "mr.h5", "mr"))
    assert "the patient's right" in only(found, "doubt", "warning", "mr_2")


# Anatomy of what networks see


def test_a_prepared_case_is_looked_at_like_a_volume(attentkit, tmp_path):
    patients(tmp_path / "ct", "ct", 6)
    for n, turn in ((1, np.s_[..., ::-1]), (2, np.s_[::-1])):
        body = abdomen("ct", n)
        write(tmp_path / "ct", f"ct_{n}", body._replace(image=body.image[turn], labels=body.labels[turn]))
    labels = np.array([0, 1, 3, 2, 4], np.uint8)[abdomen("ct", 3).labels]
    write(tmp_path / "ct", "ct_3", abdomen("ct", 3)._replace(labels=labels))
    write(tmp_path / "ct", "ct_4", abdomen("ct", 4)._replace(labels=abdomen("ct", 4).labels[..., ::-1]))
    found = checked(attentkit, prepare(tmp_path / "ct", tmp_path / "ct.h5", "ct"))
    told = {(f["case"], f["check"], f["severity"]): f["evidence"] for f in found.serious}
    assert set(told) == {
        ("ct_1", "upright", "error"), ("ct_2", "sides", "error"), ("ct_3", "sides", "error"), ("ct_4", "fit", "error"),
    }  # fmt: skip
    assert "lungs" in told["ct_1", "upright", "error"]


# Two files


@pytest.mark.parametrize(
    ("words", "severity", "names"),
    [
        (["--size", 32], "error", ("size", "48", "{ct}", "32", "{mr}")),
        (["--channels", 3], "error", ("channels", "1", "{ct}", "3", "{mr}")),
        (["--pixel", 8], "warning", ("pixel_mm", "{ct}", "8.0", "{mr}")),
        (["--organs", "liver=1,spleen=4,*=0"], "error",
         ("organs", "liver, right kidney, left kidney, spleen", "{ct}", "liver, spleen", "{mr}")),
    ],
)  # fmt: skip
def test_two_files_that_cannot_be_trained_together(attentkit, sound, tmp_path, words, severity, names):
    mr = prepare(sound / "mr", tmp_path / "mr.h5", "mr", *words)
    ((how_bad, case, evidence),) = checked(attentkit, sound / "ct.h5", mr).about("agreement")
    assert (how_bad, case) == (severity, "")
    assert quotes(evidence, *(name.format(ct=sound / "ct.h5", mr=mr) for name in names))


def thicker(body, times=2):
    """The same abdomen of slices that lie so many times as far apart."""
    affine = body.affine.copy()
    affine[:3, 2] *= times
    return body._replace(affine=affine)


@pytest.mark.parametrize(
    ("words", "severity", "advice"),
    [
        ([], "note", ("nothing to do for single slices", "--channels 3")),
        (["--channels", 3], "warning", ("--channels 1",)),
    ],
)
def test_slices_that_lie_twice_as_far_apart_in_one_domain_are_said_where_several_are_seen(
    attentkit, tmp_path, words, severity, advice
):
    for n in range(1, 7):
        write(tmp_path / "ct", f"ct_{n}", abdomen("ct", n))
        write(tmp_path / "mr", f"mr_{n}", thicker(abdomen("mr", n)))
    files = [prepare(tmp_path / m, tmp_path / f"{m}.h5", m, *words) for m in ("ct", "mr")]
    (found,) = [each for each in checked(attentkit, *files).findings if each["check"] == "distances"]
    assert found["severity"] == severity and quotes(found["advice"], *advice)
    assert quotes(found["evidence"], "8 mm apart in", str(files[0]), "16 mm apart in", str(files[1]), "2.0 times")


def test_one_case_whose_slices_lie_thrice_as_far_apart_as_those_of_another_is_said(tmp_path):
    for n in range(1, 7):
        write(tmp_path / "ct", f"ct_{n}", thicker(abdomen("ct", n), 3 if n == 6 else 1))
    file = Prepared.open(prepare(tmp_path / "ct", tmp_path / "ct.h5", "ct"))
    assert quotes(stretched([file]), "8 mm apart in one case", str(file.path), "24 mm in another")


def test_a_patient_in_both_domains_is_an_error_even_if_the_slices_differ(attentkit, sound, tmp_path):
    shutil.copytree(sound / "mr", tmp_path / "mr")
    shutil.copy(sound / "ct" / "images" / "ct_2.nii.gz", tmp_path / "mr" / "images" / "mr_6.nii.gz")
    shutil.copy(sound / "ct" / "labels" / "ct_2.nii.gz", tmp_path / "mr" / "labels" / "mr_6.nii.gz")
    mr = prepare(tmp_path / "mr", tmp_path / "mr.h5", "mr", "--size", 32)
    found = checked(attentkit, sound / "ct.h5", mr)
    ((severity, case, evidence),) = found.about("duplicates")
    assert (severity, case) == ("error", "ct_2")
    assert quotes(evidence, f"ct_2 [{sound / 'ct.h5'}, train], mr_6 [{mr}, test]", "same file")


def test_a_prepared_file_is_not_held_against_the_data_set_that_it_was_made_of(attentkit, sound):
    assert checked(attentkit, sound / "ct", sound / "ct.h5", "--modality", "ct").serious == []
