"""`attentkit check`: one patient twice, in a data set or in two, and cases unlike the others."""

from dataclasses import replace

import numpy as np
import pytest

from attent_kit.data.check.case import Trace, content_hash, fingerprint
from attent_kit.data.check.patients import duplicate_findings
from attent_kit.data.check.sets import set_findings
from support.abdomens import abdomen, checked, only, patients, write
from support.layout_folders import nnunet, write_json, write_phantoms
from support.messages import quotes

# Twice


def test_the_same_voxels_under_two_names_are_told_whatever_the_axis_order_of_the_file(attentkit, tmp_path):
    patients(tmp_path)
    body = abdomen("ct", 1)
    las = body.affine.copy()
    las[:, 3] += las[:, 0] * (body.image.shape[0] - 1)
    las[:, 0] *= -1
    write(tmp_path, "ct_4", body._replace(image=body.image[::-1], labels=body.labels[::-1], affine=las))
    evidence = only(checked(attentkit, tmp_path, "--modality", "ct"), "duplicates", "warning", "ct_1")
    assert quotes(evidence, "ct_1, ct_4", "same voxels")


def test_the_same_label_map_of_two_images_is_told(attentkit, tmp_path):
    patients(tmp_path)
    shape = [min(abdomen("ct", n).image.shape[2] for n in (1, 2))] * 2
    one, two = (abdomen("ct", n) for n in (1, 2))
    write(tmp_path, "ct_1", one._replace(image=one.image[..., : shape[0]], labels=one.labels[..., : shape[0]]))
    write(tmp_path, "ct_2", two._replace(image=two.image[..., : shape[1]], labels=one.labels[..., : shape[1]]))
    told = checked(attentkit, tmp_path, "--modality", "ct").about("duplicates")
    assert [(severity, case) for severity, case, _ in told] == [("warning", "ct_1")]
    assert quotes(told[0][2], "ct_1, ct_2", "same label map")


def test_empty_label_maps_are_no_duplicates(attentkit, tmp_path):
    for n in (1, 2):
        body = abdomen("ct", n)
        write(
            tmp_path, f"ct_{n}", body._replace(image=body.image[..., :20], labels=np.zeros_like(body.labels[..., :20]))
        )
    assert checked(attentkit, tmp_path, "--modality", "ct").about("duplicates") == []


@pytest.mark.parametrize("modality", ["ct", "mr"])
@pytest.mark.parametrize("copy", ["window", "8 bits", "noise", "scale"])
def test_a_copy_with_other_grey_values_is_likely_a_copy(attentkit, tmp_path, modality, copy):
    patients(tmp_path, modality, count=6)
    image = abdomen(modality, 2).image.astype(np.float32)
    low, high = (-125, 275) if modality == "ct" else np.percentile(image, [1, 99])
    changed = {
        "window": np.clip(image, low, high),
        "8 bits": np.rint(255 * (np.clip(image, low, high) - low) / (high - low)),
        "noise": image + np.random.default_rng(0).normal(0, 0.1 * (high - low), image.shape),
        "scale": 3 * image + 50,
    }[copy]
    write(tmp_path, "x", abdomen(modality, 2)._replace(image=changed.astype(np.float32), labels=None))
    found = checked(attentkit, tmp_path, "--modality", modality, "--layout", "pairs")
    ((severity, case, evidence),) = found.about("duplicates")
    assert (severity, case) == ("warning", f"{modality}_2")
    assert quotes(evidence, f"{modality}_2 and x", "same size", "correlation of ")


def test_no_two_patients_of_the_phantom_are_alike():
    prints = np.stack([fingerprint(abdomen(m, n).image.transpose(2, 1, 0)) for m in ("ct", "mr") for n in range(1, 7)])
    alike = prints @ prints.T
    assert np.allclose(alike.diagonal(), 1, atol=1e-5) and alike[np.triu_indices(12, 1)].max() < 0.6


def test_a_patient_in_two_splits_is_an_error(attentkit, tmp_path):
    nnunet(tmp_path, cases=("a", "b", "c"), numTraining=3)
    write_json(tmp_path / "splits_final.json", [{"train": ["a", "c"], "val": ["b"]}])
    for kind, name in (("imagesTr", "{}_0000"), ("labelsTr", "{}")):
        files = {case: tmp_path / kind / (name.format(case) + ".nii.gz") for case in "abc"}
        files["b"].write_bytes(files["a"].read_bytes())
    told = checked(attentkit, tmp_path).about("duplicates")
    assert told[0][:2] == ("error", "a") and quotes(told[0][2], "a [train], b [val]", "same voxels", "train and val")
    write_json(tmp_path / "splits_final.json", [{"train": ["a", "b"], "val": ["c"]}])
    assert checked(attentkit, tmp_path).about("duplicates")[-1][:2] == ("warning", "a")


def test_a_patient_in_two_data_sets_is_an_error(attentkit, tmp_path):
    patients(tmp_path / "one")
    patients(tmp_path / "two", "mr")
    assert checked(attentkit, tmp_path / "one", tmp_path / "two").serious == []
    write(tmp_path / "two", "mr_9", abdomen("ct", 3))
    found = checked(attentkit, tmp_path / "one", tmp_path / "two")
    ((severity, case, evidence),) = found.about("duplicates")
    assert (severity, case) == ("error", "ct_3")
    one, two = tmp_path / "one", tmp_path / "two"
    assert quotes(evidence, f"ct_3 [{one}], mr_9 [{two}]", "same voxels", f"{one} and {two}", "share no patient")


def trace(case, data_set="a", part="", splits=(), seed=None, **more):
    """What is kept of a case of noise; each has voxels of its own unless `seed` says otherwise."""
    noise = np.random.default_rng(sum(map(ord, f"{data_set}{part}{case}")) if seed is None else seed).normal(
        size=(8, 8, 8)
    )
    facts = {"data_set": data_set, "part": part, "case": case, "file": f"{case}.nii", "splits": splits,
             "shape": (8, 8, 8), "spacing": (5.0, 1.0, 1.0), "content": content_hash(noise),
             "fingerprint": fingerprint(noise)}  # fmt: skip
    return Trace(**facts | more)


def severities(*traces):
    return [(finding.severity, finding.evidence.partition(",")[0]) for finding in duplicate_findings(traces)]


def test_ids_of_dicom_tell_patients():
    cases = [
        trace("1", study="1.2", patient="X"),
        trace("2", study="1.2", patient="X"),
        trace("3", study="1.3", patient="Y"),
    ]
    (finding,) = duplicate_findings(cases)
    assert quotes(finding.evidence, "1, 2 ", "same StudyInstanceUID")
    cases[1] = replace(cases[1], study="1.9", splits=("test",))
    cases[0] = replace(cases[0], splits=("train",))
    (finding,) = duplicate_findings(cases)
    assert finding.severity == "error"
    assert quotes(finding.evidence, "1 [train], 2 [test]", "same PatientID", "test and train")


def test_ids_that_anonymisation_wrote_into_every_file_tell_nothing():
    assert duplicate_findings([trace(str(n), patient="CHAOS") for n in range(6)]) == []
    assert duplicate_findings([trace(str(n), patient="Anonymous") for n in range(2)]) == []
    assert duplicate_findings([trace(str(n), patient="", study="") for n in range(2)]) == []


def test_a_patient_id_in_two_data_sets_is_a_warning_since_hospitals_number_alike():
    assert [s for s, _ in severities(trace("1", "a", patient="7"), trace("2", "b", patient="7"))] == ["warning"]


def test_sequences_of_one_patient_in_one_data_set_are_no_duplicates():
    one, two = (
        trace("1", part="t1-inphase", labels="x", patient="7"),
        trace("1", part="t1-outphase", labels="x", patient="7"),
    )
    assert duplicate_findings([one, two]) == []
    assert [s for s, _ in severities(one, replace(two, case="2"))] == ["warning"]


def test_many_alike_are_counted():
    found = duplicate_findings([replace(trace(str(n), seed=0), content=str(n)) for n in range(10)])
    # 10 cases make 45 pairs.
    assert len(found) == 21 and found[-1].evidence.startswith("25 more pairs")


def test_dicom_of_one_patient_is_known_by_its_tags(attentkit, tmp_path):
    pytest.importorskip("pydicom")
    import pydicom

    write_phantoms(tmp_path, layouts=["chaos"])
    assert checked(attentkit, tmp_path / "chaos", "--part", "t2spir").serious == []
    for path in (tmp_path / "chaos" / "Train_Sets" / "MR" / "2").rglob("*.dcm"):
        header = pydicom.dcmread(path)
        header.PatientID = "phantom-mr1"
        header.save_as(path)
    found = checked(attentkit, tmp_path / "chaos", "--part", "t2spir")
    assert quotes(only(found, "duplicates", "warning", "1"), "1, 2 ", "same PatientID")


# Unlike the others


def outliers(*traces):
    return [(f.severity, f.case, f.evidence) for f in set_findings(traces, (), "a") if f.check == "outliers"]


def test_an_outlier_is_named_with_median_and_deviation():
    cases = [trace(str(n), spacing=(5.0 + 0.1 * n, 1.0, 1.0)) for n in range(5)]
    assert outliers(*cases) == []
    # 5.0 to 5.4 and 20: the median is 5.25, the distances from it .25 .15 .05 .05 .15 14.75, their median .15.
    ((severity, case, evidence),) = outliers(*cases, trace("x", spacing=(20.0, 1.0, 1.0)))
    assert (severity, case) == ("warning", "x")
    assert quotes(evidence, "between slices is 20 mm", "median of the 6 cases is 5.25 mm", "deviation 0.15 mm")


def test_a_case_half_as_fine_again_is_a_note_and_one_within_a_quarter_nothing():
    cases = [trace(str(n), shape=(30, 256, 256)) for n in range(5)]
    odd = outliers(*cases, trace("288", shape=(30, 288, 288)), trace("400", shape=(30, 400, 256)))
    assert [(severity, case) for severity, case, _ in odd] == [("note", "400")]
    assert quotes(odd[0][2], "rows is 400", "median of the 7 cases is 256", "deviation 0")


def test_widely_spread_cases_have_no_outliers_and_few_cases_neither():
    counts = (85, 100, 120, 147, 163, 198)
    assert outliers(*[trace(str(n), shape=(n, 512, 512)) for n in counts]) == []
    assert outliers(*[trace(str(n), shape=(n, 512, 512)) for n in (10, 10, 10, 100)]) == []


@pytest.mark.parametrize(("factor", "severity"), [(1.15, None), (1.5, "note"), (3.0, "warning")])
def test_a_scan_of_another_spacing_is_told(attentkit, tmp_path, factor, severity):
    patients(tmp_path, count=5)
    body = abdomen("ct", 6)
    affine = body.affine.copy()
    affine[:3, 2] *= factor
    write(tmp_path, "ct_6", body._replace(affine=affine))
    found = checked(attentkit, tmp_path, "--modality", "ct").about("outliers")
    assert [(s, case) for s, case, _ in found] == ([(severity, "ct_6")] if severity else [])
