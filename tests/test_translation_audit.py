"""Translations whose fate is known, audited: identity, a negative, a lost organ, everything two pixels aside.

Slices of 32 x 32 with two squares on air: 100 is organ 1 (10 x 10 pixels), 200 organ 2 (8 x 8). The stand-in's segmentor knows
organs by these values, so what it finds in a translation is known too.
"""

import json

import nibabel as nib
import numpy as np
import pytest

from attent_kit.cli import run as cli
from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.study import translation_audit
from attent_kit.engine.study.runs import OpenedRuns
from attent_kit.engine.study.translation_audit import (
    TranslatesNothing,
    TranslationAuditOptions,
    audit_translations,
    of_full_slices,
)
from attent_kit.engine.study.translation_audit import audit_translation as audit_opened
from attent_kit.errors import ConfigError, DataError
from attent_kit.report.translation_audit import DRIFT, lines, read_translation_audit, worst_slices
from attent_kit.report.translation_audit import TranslationAuditRow as Row
from support import known_fates
from support.known_fates import REGISTRY

AIR, ONE, TWO = 32 * 32 - 100 - 64, 100, 64
"""Pixels of a slice."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """ct.h5 with labels, bare.h5 without, partly.h5 without those of the test case, and mr.h5 as their source.

    A case for training, validation and test each."""
    folder = tmp_path_factory.mktemp("squares")
    for domain, labelled in (("mr", 3), ("ct", 3), ("bare", 0), ("partly", 2)):
        for case in (1, 2, 3):
            labels = np.zeros((32, 32, 3), np.uint8)
            labels[3:13, 3 + case : 13 + case] = 1
            labels[18:26, 16:24] = 2
            for kind, array in (("images", labels * 100.5), ("labels", labels))[: 2 if case <= labelled else 1]:
                place = folder / domain / kind
                place.mkdir(parents=True, exist_ok=True)
                nib.save(nib.Nifti1Image(array, np.diag([2.0, 2.0, 5.0, 1.0])), place / f"{domain}_{case}.nii.gz")
        words = ["prepare", folder / domain / "images", "--out", folder / f"{domain}.h5", "--modality", "mr"]
        words += ["--domain", domain, "--window", 0, 201, "--size", 32, "--organs", "middle=1,bright=2"]
        words += [f"--{split}={domain}_{n}" for n, split in enumerate(("train", "val", "test"), start=1)]
        words += ["--labels", folder / domain / "labels"] if labelled else []
        words += ["--allow-unlabelled"] if labelled < 3 else []
        assert cli([str(word) for word in words]) == 0
    return folder


@pytest.fixture(autouse=True)
def _quick(request, monkeypatch):
    """Pictures take half a second each and are empty files, but for a test that asks for `drawn`."""

    def draw(worst, organs, names, title, stem):
        for ending in ("png", "svg"):
            stem.with_name(f"{stem.name}.{ending}").write_bytes(b"")

    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(translation_audit, "translation_audit_figure", draw)


@pytest.fixture
def drawn():
    """Pictures are drawn."""


@pytest.fixture
def trained_as(data, tmp_path):
    """`trained_as("lost")` is the folder of a finished run, OUT/mr2ct/lost/seed0."""

    def folder(name, target="ct"):
        place = tmp_path / f"mr2{target}" / name / "seed0"
        return known_fates.trained_as(name, place, data / "mr.h5", data / f"{target}.h5")

    return folder


def audit_translation(folder, baseline=None):
    runs = OpenedRuns(REGISTRY)
    return audit_opened(runs.open(folder), runs, "cpu", baseline and runs.open(baseline))


def audited(folder, **more):
    audit = audit_translation(folder, **more)
    return audit, {line.measure: line.mean for line in lines(audit.rows)}


def test_what_is_prepared_is_what_is_drawn(data):
    labels = Prepared.open(data / "ct.h5").label_slices("ct_2")
    assert [(labels[0] == value).sum() for value in (0, 1, 2)] == [AIR, ONE, TWO]


def test_identity_keeps_everything(trained_as):
    audit, means = audited(trained_as("identity"))
    expected = {"edge": 1, "self-similarity": 1, "agreement": 1, DRIFT + "middle": 0, DRIFT + "bright": 0}
    assert means == pytest.approx(expected)
    assert (audit.expected, audit.judge) == ("truth", "the segmentor of identity itself")


def test_a_negative_keeps_structure_and_loses_what_grey_values_mean(trained_as):
    # Air becomes bright, bright becomes air, the middle stays: Dice 1 and 0, and organ 2 has the volume of air.
    _, means = audited(trained_as("negative"))
    expected = {
        "edge": 1,
        "self-similarity": 1,
        "agreement": (1 + 0) / 2,
        DRIFT + "middle": 0,
        DRIFT + "bright": (AIR - TWO) / TWO,
    }
    assert means == pytest.approx(expected)


def test_a_lost_organ_is_lost_in_every_measure(trained_as):
    _, means = audited(trained_as("lost"))
    assert (means["agreement"], means[DRIFT + "middle"], means[DRIFT + "bright"]) == pytest.approx((0.5, 0, -1))
    assert means["edge"] < 0.75 and means["self-similarity"] < 0.95


def test_two_pixels_aside_keep_volume_and_lose_overlap(trained_as):
    # Columns of 10 and 8 pixels overlap themselves in 8 and 6.
    audit, means = audited(trained_as("aside"))
    assert means["agreement"] == pytest.approx((8 / 10 + 6 / 8) / 2)
    assert means[DRIFT + "middle"] == means[DRIFT + "bright"] == 0
    for measure in ("edge", "self-similarity"):
        assert means[measure] == pytest.approx(audit.moved[measure], abs=0.05)
        assert means[measure] < 0.8


def test_case_and_slice_of_each_number_are_told_and_written(trained_as, drawn):
    folder = trained_as("lost")
    audit, _ = audited(folder)
    assert read_translation_audit(folder / "translation_audit.csv") == audit.rows
    assert {row.case for row in audit.rows} == {"ct_2", "ct_3"}
    assert {row.slice for row in audit.rows if row.measure == "edge"} == {0, 1, 2}
    assert {row.slice for row in audit.rows if row.measure.startswith(DRIFT)} == {None}
    assert (folder / "translation_audit.csv").read_text().splitlines()[0] == "case,slice,measure,value"
    for ending in ("png", "svg"):
        assert (folder / f"translation_audit.{ending}").stat().st_size > 1000


@pytest.mark.parametrize("target", ["bare", "partly"])
def test_without_labels_of_all_cases_the_judge_is_held_against_itself(trained_as, target):
    audit, means = audited(trained_as("lost", target=target))
    assert audit.expected == "what the judge finds in the image"
    assert (means["agreement"], means[DRIFT + "bright"]) == pytest.approx((0.5, -1))


def test_the_run_that_learned_from_the_source_alone_is_the_judge(trained_as):
    blind, folder = trained_as("blind"), trained_as("identity")
    audit, means = audited(folder)
    assert audit.judge == "blind in seed0"
    # It calls all of a slice organ 1: Dice 2 * 100 / (1024 + 100) and 0.
    assert means["agreement"] == pytest.approx(200 / 1124 / 2)
    assert means[DRIFT + "bright"] == -1
    assert audited(folder, baseline=blind)[0].rows == audit.rows


def test_a_segmentor_of_target_style_is_no_judge_of_source_style(trained_as):
    folder = trained_as("other-way")
    audit, means = audited(folder)
    assert (audit.judge, set(means)) == ("", {"edge", "self-similarity"})
    trained_as("alone")
    audit, means = audited(folder)
    assert (audit.judge, means["agreement"]) == ("alone in seed0", 1)


def test_a_second_audit_of_the_same_run_writes_nothing(trained_as):
    folder = trained_as("aside")
    first, _ = audited(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    second, _ = audited(folder)
    assert second == first
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    facts = json.loads((folder / "translation_audit.json").read_text())
    facts["made_of"]["run"] = "another"
    (folder / "translation_audit.json").write_text(json.dumps(facts))
    assert audited(folder)[0] == first
    assert (folder / "translation_audit.csv").stat().st_mtime_ns > before[folder / "translation_audit.csv"]
    (folder / "translation_audit.png").unlink()
    assert audited(folder)[0].rows == first.rows and (folder / "translation_audit.png").exists()


@pytest.mark.parametrize("method", ["plain", "nothing"])
def test_a_method_without_translation_has_nothing_to_audit(trained_as, method):
    folder = trained_as(method)
    with pytest.raises(TranslatesNothing, match=f"'{method}' translates no"):
        audit_translation(folder)
    assert not list(folder.glob("translation_audit*"))


def test_a_comparison_is_audited_run_by_run_and_goes_on_after_one_that_cannot_be(trained_as):
    lost, identity, plain = (trained_as(name) for name in ("lost", "identity", "plain"))
    (identity / "checkpoint.ckpt").write_bytes(b"spoilt")
    told = []
    found = audit_translations(
        TranslationAuditOptions(lost.parents[2], device="cpu"), REGISTRY, lambda *words: told.append(words)
    )
    assert list(found.audits) == [lost]
    assert [folder for folder, _ in found.failed] == [identity]
    assert [done for _, done, _ in told] == [0, 1, 2] and {total for *_, total in told} == {3}
    assert not list(plain.glob("translation_audit*"))


def test_data_that_have_changed_and_a_lone_segmentor_are_refused(trained_as, data):
    folder = trained_as("lost")
    config = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(config.replace("ct.h5", "mr.h5"))
    with pytest.raises(ConfigError, match=r"mr\.h5 no longer"):
        audit_translation(folder)
    (folder / "config.toml").write_text(config.replace("ct.h5", "gone.h5"))
    with pytest.raises(DataError, match="gone.h5 does not exist"):
        audit_translation(folder)
    (folder / "config.toml").write_text(config)
    (folder / "checkpoint.ckpt").unlink()
    with pytest.raises(ConfigError, match="checkpoint.ckpt"):
        audit_translation(folder)


def test_the_worst_slices_are_the_least_of_each_measure_one_a_case():
    rows = [
        Row(case, z, measure, value)
        for case, z, measure, value in (
            ("a", 0, "edge", 0.5), ("a", 1, "edge", 0.4), ("b", 0, "edge", 0.6), ("c", 0, "edge", 0.7),
            ("a", 1, "agreement", 0.1), ("b", 3, "agreement", 0.1), ("c", 0, "agreement", float("nan")),
            ("a", None, "agreement", -1.0),
        )
    ]  # fmt: skip
    chosen = worst_slices(rows, ("edge", "agreement"), cases=2)
    assert [(why, row.case, row.slice) for why, row in chosen] == [
        ("edge 0.40\nagreement 0.10", "a", 1),
        ("edge 0.60", "b", 0),
        ("agreement 0.10", "b", 3),
    ]


def test_agreement_is_worst_among_slices_that_show_most_organs():
    rows = [Row("a", z, "agreement", value) for z, value in ((0, 0.0), (1, 0.4), (2, 0.6))]
    rows += [Row("a", 0, "edge", 0.1), Row("b", 0, "agreement", 0.2)]
    kept = of_full_slices(rows, {("a", 0): 1, ("a", 1): 2, ("a", 2): 2, ("b", 0): 1})
    assert kept == rows[1:]


def test_lines_are_means_of_cases_and_the_worst_of_them():
    rows = [
        Row("a", 0, "edge", 0.2), Row("a", 1, "edge", 0.4), Row("b", 0, "edge", 0.9),
        Row("a", None, DRIFT + "liver", 0.1), Row("b", None, DRIFT + "liver", -0.5),
    ]  # fmt: skip
    edge, liver = lines(rows)
    assert (edge.mean, edge.worst, edge.case) == (pytest.approx(0.6), pytest.approx(0.3), "a")
    assert (liver.mean, liver.worst, liver.case) == (pytest.approx(-0.2), -0.5, "b")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1: the header is"),
        ("case,measure\n", "line 1: the header is"),
        ("case,slice,measure,value\na,b,edge,1\n", "line 2: slice 'b' is not a number"),
        ("case,slice,measure,value\na,1,edge,1\na,1,edge\n", "line 3: 3 fields, expected 4"),
    ],
)
def test_an_audit_that_cannot_be_read_is_named_with_its_line(tmp_path, text, said):
    (tmp_path / "translation_audit.csv").write_text(text)
    with pytest.raises(DataError, match=f"{said}.*run `attentkit audit` again"):
        read_translation_audit(tmp_path / "translation_audit.csv")
