"""Data sets that annotate different organs, prepared into one domain: names, maps, and what contradicts."""

import json
import tomllib

import h5py
import nibabel as nib
import numpy as np
import pytest

import attent_kit as ak
from attent_kit.data.prepared.file import PARTIAL_VERSION, VERSION, Prepared
from attent_kit.data.prepared.hdf5 import put_text
from attent_kit.data.sets.labelmap import LabelMap, OrganNames, parse_organs
from attent_kit.data.sets.synonyms import overlap, words_of
from attent_kit.errors import ConfigError, DataError
from support.cases import write_case
from support.commands import says
from support.messages import quotes

FOUR = "liver=1,right kidney=2,left kidney=3,spleen=4"
ORGANS = ["liver", "right kidney", "left kidney", "spleen"]


@pytest.fixture
def two(tmp_path):
    """a: two CTs with all four organs. b: two CTs with the liver alone, as 7, and the right kidney as 9."""
    for case in (1, 2):
        write_case(tmp_path / "a", f"a_{case}", "ct", seed=case)
        write_case(tmp_path / "b", f"b_{case}", "ct", seed=10 + case)
        keep(tmp_path / "b" / "labels" / f"b_{case}.nii.gz", {1: 7, 2: 9})
    return tmp_path


def keep(path, values):
    """Rewrite a label map with other values, and nothing else in it."""
    image = nib.load(path)
    labels = np.asarray(image.dataobj)
    kept = np.zeros_like(labels)
    for value, new in values.items():
        kept[labels == value] = new
    nib.save(nib.Nifti1Image(kept, image.affine), path)


def words(two, *more, organs=FOUR):
    named = ["prepare", two / "a" / "images", "--labels", two / "a" / "labels", "--organs", organs, "--modality", "ct"]
    return [*named, "--size", 32, "-o", two / "ct.h5", *more]


def added(two, organs):
    return "--add", two / "b" / "images", two / "b" / "labels", organs


def test_two_data_sets_with_other_values_and_names_are_one_domain(attentkit, two):
    outcome = attentkit(*words(two, *added(two, "Liver=7,kidney_right=9")))
    assert outcome.code == 0, outcome.err
    assert "right kidney in 4, left kidney in 2" in outcome.out
    domain = Prepared.open(two / "ct.h5")
    assert list(domain.organs) == ORGANS and domain.manifest["version"] == PARTIAL_VERSION
    annotated = {case.id: case.annotated for case in domain.cases}
    assert annotated["a_1"] == tuple(ORGANS) and annotated["b_2"] == ("liver", "right kidney")
    assert domain.unknown("b_1") == (3, 4) and domain.unknown("a_1") == ()
    labels = domain.label_slices("b_1")
    assert set(np.unique(labels)) == {0, 1, 2}
    assert (labels == 1).sum() == (domain.label_slices("a_1") == 1).sum()
    record = next(r for r in domain.manifest["cases"] if r["id"] == "b_1")
    assert record["label_map"]["organs"] == {"liver": [7], "right kidney": [9], "left kidney": [], "spleen": []}
    assert set(record["labels"]["voxels"]) == {"liver", "right kidney"}
    said = tomllib.loads((two / "ct.toml").read_text())
    assert said["options"]["add"] == ["images, labels, Liver=7,kidney_right=9"]
    assert next(r for r in said["cases"] if r["id"] == "b_1")["annotated"] == ["liver", "right kidney"]


def test_the_same_from_python_and_from_a_list_with_a_column(two):
    first = ak.prepare(
        two / "a/images", two / "one.h5", labels=two / "a/labels", organs=FOUR, modality="ct", size=32,
        add=[(two / "b/images", two / "b/labels", {"liver": 7, "RK": 9})],
    )  # fmt: skip
    lines = [f"a/images/a_{n}.nii.gz,a/labels/a_{n}.nii.gz," for n in (1, 2)]
    lines += [f'b/images/b_{n}.nii.gz,b/labels/b_{n}.nii.gz,"liver=7,RK=9"' for n in (1, 2)]
    (two / "list.csv").write_text("\n".join(["image,labels,organs", *lines]))
    second = ak.prepare(two / "list.csv", two / "two.h5", organs=FOUR, modality="ct", size=32)
    assert first.content_hash() == second.content_hash()
    assert [case.annotated for case in first.cases] == [case.annotated for case in second.cases]


def test_names_alone_in_the_column_take_the_values_of_the_others(two):
    lines = [f"a/images/a_{n}.nii.gz;a/labels/a_{n}.nii.gz;{cell}" for n, cell in ((1, ""), (2, "liver,spleen"))]
    (two / "list.csv").write_text("\n".join(["image;labels;organs", *lines]))
    domain = ak.prepare(two / "list.csv", two / "ct.h5", organs=FOUR, modality="ct", size=32)
    assert domain.case("a_1").annotated == tuple(ORGANS) and domain.case("a_2").annotated == ("liver", "spleen")
    # What a map does not name is background there, where it may be an organ.
    assert set(np.unique(domain.label_slices("a_2"))) == {0, 1, 4}


def test_what_is_annotated_is_part_of_the_content_and_a_complete_file_is_as_it_was(two, prepared):
    whole = Prepared.open(prepared / "ct.h5")
    assert whole.manifest["version"] == VERSION and all(case.annotated == whole.organs for case in whole.cases)
    assert not any("annotated" in record or "label_map" in record for record in whole.manifest["cases"])
    hashes = set()
    for spleen in ("4", "?"):
        # The case has no spleen: the same voxels, once annotated and once not.
        for n in (1, 2):
            keep(two / f"a/labels/a_{n}.nii.gz", {1: 1, 2: 2, 3: 3})
        organs = FOUR.replace("spleen=4", f"spleen={spleen}")
        out = two / f"spleen{len(hashes)}.h5"
        hashes.add(
            ak.prepare(two / "a/images", out, labels=two / "a/labels", organs=organs, modality="ct").content_hash()
        )
    assert len(hashes) == 2


def test_a_data_set_that_leaves_organs_out_says_so_with_a_question_mark(attentkit, two):
    outcome = attentkit(*words(two, organs="liver=1,right kidney=2,left kidney=3,spleen=?,*=0"))
    assert outcome.code == 0 and "no case annotates the organ 'spleen'" in outcome.err
    domain = Prepared.open(two / "ct.h5")
    assert {case.annotated for case in domain.cases} == {("liver", "right kidney", "left kidney")}


def test_counts_of_classes_are_those_of_the_cases_that_annotate_them(two):
    domain = ak.prepare(
        two / "a/images", two / "ct.h5", labels=two / "a/labels", organs=FOUR, modality="ct", size=32,
        add=[(two / "b/images", two / "b/labels", "liver=7,right kidney=9")], train=["a_1", "b_1"], test=["a_2", "b_2"],
    )  # fmt: skip
    whole, both = domain.class_counts(["a_1"]), domain.class_counts(["a_1", "b_1"])
    assert whole.dtype == np.int64 and both.tolist() == (2 * whole).tolist()
    only_partial = domain.class_counts(["b_1"])
    assert only_partial[[3, 4]].tolist() == [0, 0] and only_partial[1] == whole[1]


BAD = {
    "no organs": (lambda t: words(t, *added(t, "-")), 2, "third value of --add"),
    "one organ twice": (lambda t: words(t, *added(t, "RK=7,right kidney=9")), 2, "'RK' and 'right kidney'"),
    "a union": (lambda t: words(t, *added(t, "liver=7,kidneys=9")), 2, "'right kidney' and 'kidneys' overlap"),
    "a lesion": (lambda t: words(t, *added(t, "liver=7,liver tumor=9")), 2, "'liver' and 'liver tumor' overlap"),
    "stray values": (lambda t: words(t, *added(t, "liver=7")), 3, "the value 9"),
    "the same case": (lambda t: words(t, "--add", t / "a/images", t / "a/labels", "liver=1,*=0"), 3, "the case 'a_1' is in"),
    "nothing": (lambda t: words(t, "--add", "-", "-", "liver=1"), 2, "--add names no data set"),
    "not there": (lambda t: words(t, "--add", t / "c", "-", "liver=1"), 3, "does not exist"),
    "no value": (lambda t: words(t, *added(t, "liver=?")), 2, "liver"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_what_contradicts_is_one_sentence_and_leaves_nothing(attentkit, two, kind):
    line, code, sentence = BAD[kind]
    before = sorted(two.iterdir())
    assert says(attentkit(*line(two)), code, sentence)
    assert sorted(two.iterdir()) == before


@pytest.fixture
def decathlon(two):
    """Task03_Liver as the Decathlon has it: two CTs with the liver, 1, and its tumours, 2."""
    place = two / "Task03_Liver"
    listed = []
    for n in (1, 2):
        write_case(two / "raw", f"liver_{n}", "ct", seed=20 + n)
        keep(two / "raw" / "labels" / f"liver_{n}.nii.gz", {1: 1, 2: 2})
        for kind, folder in (("images", "imagesTr"), ("labels", "labelsTr")):
            (place / folder).mkdir(parents=True, exist_ok=True)
            (two / "raw" / kind / f"liver_{n}.nii.gz").rename(place / folder / f"liver_{n}.nii.gz")
        listed.append({"image": f"./imagesTr/liver_{n}.nii.gz", "label": f"./labelsTr/liver_{n}.nii.gz"})
    facts = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver", "2": "cancer"}, "training": listed}
    (place / "dataset.json").write_text(
        json.dumps({**facts, "numTraining": 2, "numTest": 0, "test": [], "name": "Liver"})
    )
    return place


def test_a_data_set_that_knows_its_organs_gives_those_that_are_asked_for(attentkit, two, decathlon):
    outcome = attentkit(*words(two, "--add", decathlon, "-", "-"))
    assert outcome.code == 0, outcome.err
    domain = Prepared.open(two / "ct.h5")
    assert domain.case("liver_1").annotated == ("liver",) and domain.organs == tuple(ORGANS)
    joined = attentkit(*words(two, "--add", decathlon, "-", "liver=1+2"))
    assert joined.code == 0, joined.err
    voxels = {r["id"]: r["labels"]["voxels"] for r in Prepared.open(two / "ct.h5").manifest["cases"]}
    assert voxels["liver_1"]["liver"] == voxels["a_1"]["liver"] + voxels["a_1"]["right kidney"]


def test_a_place_with_several_data_sets_cannot_be_added(attentkit, two, decathlon):
    facts = json.loads((decathlon / "dataset.json").read_text())
    (decathlon / "dataset.json").write_text(json.dumps({**facts, "modality": {"0": "T1", "1": "T2"}}))
    assert says(attentkit(*words(two, "--add", decathlon, "-", "liver=1+2")), 2, "T1", "--add takes one")


def test_one_label_file_of_two_cases_is_refused(attentkit, two):
    cells = (("a_1", "liver=1"), ("a_2", "spleen=1"))
    lines = ["image,labels,organs", *(f"a/images/{case}.nii.gz,a/labels/a_1.nii.gz,{cell}" for case, cell in cells)]
    (two / "list.csv").write_text("\n".join(lines))
    outcome = attentkit("prepare", two / "list.csv", "--modality", "ct", "-o", two / "ct.h5")
    assert says(outcome, 3, "a_1.nii.gz ... 'a_1' and 'a_2'")


def test_a_bad_cell_names_its_line(attentkit, two):
    (two / "list.csv").write_text("image,labels,organs\na/images/a_1.nii.gz,a/labels/a_1.nii.gz,liver=x\n")
    assert says(
        attentkit("prepare", two / "list.csv", "--modality", "ct", "-o", two / "ct.h5"), 3, "case 1", "'liver=x'"
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [("kidney_right", "Right Kidney"), ("RK", "right kidney"), ("kidney (right)", "R kidney"), ("LeftKidney", "lkid"),
     ("oesophagus", "Esophagus"), ("IVC", "postcava"), ("gall bladder", "gallbladder"), ("kidney", "kidneys")],
)  # fmt: skip
def test_one_organ_has_several_names(one, other):
    assert words_of(one) == words_of(other) and overlap(one, other)


def test_what_lies_in_another_organ_overlaps_with_it_and_what_does_not_does_not():
    assert overlap("kidneys", "LK") and overlap("left kidney", "kidney tumour") and overlap("liver cancer", "liver")
    assert overlap("adrenal_gland_left", "adrenal glands")
    for one, other in (
        ("right kidney", "left kidney"),
        ("liver", "spleen"),
        ("kidneys", "liver tumor"),
        ("L1", "left kidney"),
    ):
        assert not overlap(one, other)


def test_a_lesion_and_its_organ_in_every_map_are_two_classes(two):
    organs = {"liver": 1, "liver tumor": (2, 3, 4)}
    domain = ak.prepare(two / "a/images", two / "ct.h5", labels=two / "a/labels", organs=organs, modality="ct", size=32)
    assert domain.organs == ("liver", "liver tumor")


def test_a_label_map_with_a_question_mark_is_read_and_written():
    text = "liver=6,right kidney=?,spleen=1+2,*=0"
    assert str(LabelMap.parse(text)) == text and LabelMap.parse(text).annotated == ("liver", "spleen")
    assert LabelMap.of({"liver": 6, "spleen": None}) == LabelMap.parse("liver=6,spleen=?")
    names = parse_organs("liver,spleen=?")
    assert names == OrganNames(("liver", "spleen"), ("spleen",)) and str(names) == "liver,spleen=?"
    assert str(names.of(LabelMap.of({"liver": 5, "stomach": 6}))) == "liver=5,spleen=?,*=0"
    with pytest.raises(ConfigError, match="none of its organs"):
        LabelMap.parse("liver=?")


def test_check_tells_what_a_case_does_not_annotate_from_what_it_lacks(attentkit, two):
    for n in (1, 2):
        keep(two / f"a/labels/a_{n}.nii.gz", {1: 1, 2: 2, 3: 3})
    assert attentkit(*words(two, *added(two, "liver=7,right kidney=9"))).code == 0
    for place in (
        [two / "ct.h5"],
        [two / "a", "--modality", "ct", "--organs", "liver=1,right kidney=2,left kidney=3,spleen=4"],
    ):
        findings = json.loads(attentkit("check", *place, "--json").out)
        said = {f["check"]: [g["evidence"] for g in findings if g["check"] == f["check"]] for f in findings}
        assert any("no voxel of spleen" in evidence for evidence in said["organs"])
        assert ("annotated" in said) == (place == [two / "ct.h5"])
    findings = json.loads(attentkit("check", two / "ct.h5", "--json").out)
    (evidence,) = [f["evidence"] for f in findings if f["check"] == "annotated"]
    assert quotes(evidence, "2 of 4 label maps (b_1, b_2) ... left kidney, spleen")
    assert not any(f["case"] == "b_1" and "spleen" in f["evidence"] for f in findings)


def test_check_reads_the_column_of_a_list(attentkit, two):
    lines = [f"a/images/a_{n}.nii.gz,a/labels/a_{n}.nii.gz,{cell}" for n, cell in ((1, ""), (2, "liver"))]
    (two / "list.csv").write_text("\n".join(["image,labels,organs", *lines]))
    findings = json.loads(attentkit("check", two / "list.csv", "--modality", "ct", "--organs", FOUR, "--json").out)
    assert [f["evidence"] for f in findings if f["check"] == "annotated"] == [
        "1 of 2 label maps (a_2) do not annotate right kidney, left kidney, spleen"
    ]


def test_a_file_of_a_later_version_is_refused(attentkit, two):
    assert attentkit(*words(two)).code == 0
    with h5py.File(two / "ct.h5", "a") as file:
        manifest = json.loads(file["manifest"][()])
        put_text(file, "manifest", json.dumps({**manifest, "version": 3}))
    with pytest.raises(DataError, match="format 3.* 1 and 2"):
        Prepared.open(two / "ct.h5")


@pytest.mark.parametrize("annotated", ["liver", 3, ["heart"]])
def test_a_manifest_that_annotates_what_is_no_organ_is_refused(two, annotated):
    ak.prepare(two / "a/images", two / "ct.h5", labels=two / "a/labels", organs=FOUR, modality="ct", size=32)
    with h5py.File(two / "ct.h5", "a") as file:
        manifest = json.loads(file["manifest"][()])
        manifest["cases"][0]["annotated"] = annotated
        put_text(file, "manifest", json.dumps(manifest))
    with pytest.raises(DataError, match="prepare"):
        Prepared.open(two / "ct.h5")
