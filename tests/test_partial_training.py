"""Training on cases that do not annotate every organ, and scores where a test case does not annotate one."""

import csv
import math

import numpy as np
import pytest
import torch

from attent_kit.data.prepared.augment import Augmentation
from attent_kit.data.prepared.batches import training_batches
from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.snapshots.look import Viewer
from attent_kit.engine.train.glance import class_shares
from attent_kit.engine.train.train import refuse_labels
from attent_kit.errors import ConfigError, DataError
from attent_kit.interfaces import Batch, Task
from attent_kit.metrics import protocol
from attent_kit.objectives import class_of, may_be
from attent_kit.report.comparisons import compare
from attent_kit.report.intervals import paired_differences, values
from attent_kit.report.scores import Score, read_scores, refuse_gaps, summarise
from attent_kit.report.table import MethodRow, tables
from support.commands import says, train_words
from support.messages import quotes
from support.small_methods import ALIGNMENTS, REGISTRY, made

ORGANS = ("liver", "right kidney", "left kidney", "spleen")
FOUR = "liver=1,right kidney=2,left kidney=3,spleen=4"


@pytest.fixture(scope="session")
def partly(volumes, tmp_path_factory):
    """mr.h5: mr_1 and mr_2 for training, mr_2 with the liver alone. ct.h5: ct_2 and ct_3 for testing, ct_2 without its spleen."""
    from attent_kit.door import prepare

    folder = tmp_path_factory.mktemp("partly")
    for modality, cells, train, test in (
        ("mr", ("", "liver", ""), ["mr_1", "mr_2"], ["mr_3"]),
        ("ct", ("", "liver,right kidney,left kidney", ""), ["ct_1"], ["ct_2", "ct_3"]),
    ):
        place = volumes / modality
        names = [f"{place}/{{}}/{modality}_{n}.nii.gz" for n in (1, 2, 3)]
        lines = [f'{n.format("images")},{n.format("labels")},"{cell}"' for n, cell in zip(names, cells, strict=True)]
        (folder / f"{modality}.csv").write_text("\n".join(["image,labels,organs", *lines]))
        made_of = {"organs": FOUR, "modality": modality, "size": 32, "train": train, "test": test}
        prepare(folder / f"{modality}.csv", folder / f"{modality}.h5", **made_of)
    return folder


def batches(folder, resident=True, uses_target_labels=False, source="mr.h5"):
    domains = (Prepared.open(folder / name) for name in (source, "ct.h5"))
    return training_batches(*domains, Augmentation(), 0, torch.device("cpu"), uses_target_labels, resident)


def test_labels_of_a_batch_are_what_each_pixel_may_be(partly):
    made_of = batches(partly)
    source = Prepared.open(partly / "mr.h5")
    rows = source.index(source.ids("train"))
    made_of.augmentation = Augmentation(rotation=0, scale=0, shift=0)
    y = made_of.batch(0, made_of.source.count).y_s
    assert y.dtype == torch.bool and y.shape == (len(rows), 5, 32, 32)
    order = made_of._permutation(0, 0, len(rows))
    partial = 0
    for may, (case, z) in zip(y, (rows[row] for row in order), strict=True):
        labels = torch.from_numpy(source.label_row(case, z).astype(np.int64))
        assert torch.equal(class_of(may[None])[0], labels)
        left_out = [2, 3, 4] if case == "mr_2" else []
        partial += bool(left_out)
        for organ in (1, 2, 3, 4):
            assert torch.equal(may[organ], (labels == organ) | (labels == 0) & (organ in left_out))
    assert partial == 4


def test_streamed_batches_equal_resident_ones_and_complete_labels_are_one_class_each(partly, prepared):
    one, other = (batches(partly, resident).batch(3, 4) for resident in (True, False))
    assert torch.equal(one.x_s, other.x_s) and torch.equal(one.y_s, other.y_s)
    assert batches(prepared).batch(0, 2).y_s.dtype == torch.int64
    # The target's training case is complete; only its test case is not.
    assert batches(partly, uses_target_labels=True).batch(0, 2).y_t.dtype == torch.int64


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_two_steps_of_every_method_learn_from_what_a_pixel_may_be(name):
    task = Task(organs=("liver", "spleen", "kidneys"))

    def after_two_steps(labels):
        alignment, _, update = made(name, task)
        for stage in alignment.stages():
            for step in range(2):
                torch.manual_seed(step)
                x_s, x_t = torch.rand(2, 2, 1, 64, 64) * 2 - 1
                y = torch.randint(task.classes, (2, 64, 64)).clamp(max=1)
                unknown = torch.tensor([[False, False, True, True], [False] * 4])
                y_s = labels(may_be(y, unknown))
                y_t = y_s if alignment.uses_target_labels else None
                losses = stage.step(Batch(x_s, y_s, x_t, y_t), update)
                assert all(torch.isfinite(loss) for loss in losses.values()), (stage.name, losses)
        return {key: value.clone() for key, value in alignment.state_dict().items()}

    assert REGISTRY.alignment(name).takes_partial_labels
    marginal, background = after_two_steps(lambda y: y), after_two_steps(class_of)
    assert all(value.isfinite().all() for value in marginal.values())
    assert any(not torch.equal(marginal[key], background[key]) for key in marginal)


def trained_on(attentkit, partly, out, *more, alignment="source_only"):
    words = train_words(partly, out, *more, alignment=alignment)
    outcome = attentkit(*words)
    assert outcome.code == 0, outcome.err
    return outcome


def test_a_run_scores_only_what_a_test_case_annotates(attentkit, partly, tmp_path):
    out = tmp_path / "run"
    trained_on(attentkit, partly, out, "--set=snapshots=1")
    scores = read_scores(out / "scores.csv")
    spleen = [s for s in scores if (s.case, s.organ) == ("ct_2", "spleen")]
    assert [(s.metric, s.value) for s in spleen] == [("scored", 0.0)]
    assert {s.organ for s in scores if s.case == "ct_2" and s.metric == "dice"} == {*ORGANS} - {"spleen"}
    assert {s.organ for s in scores if s.case == "ct_3" and s.metric == "dice"} == {*ORGANS}
    answers = RunFolder(out).answers()
    assert answers.done and answers.covers(["ct_2", "ct_3"], ORGANS) and len(answers.read(["ct_2", "ct_3"], ORGANS))
    before = (out / "scores.csv").stat().st_mtime_ns
    trained_on(attentkit, partly, out, "--set=snapshots=1")
    assert (out / "scores.csv").stat().st_mtime_ns == before
    outcome = attentkit("select", out, "-d", "cpu")
    assert outcome.code == 0, outcome.err
    with (out / "grades.csv").open() as file:
        graded = {(row["case"], row["organ"]) for row in csv.DictReader(file)}
    assert graded == {(case, organ) for case in ("ct_2", "ct_3") for organ in ORGANS} - {("ct_2", "spleen")}


@pytest.mark.parametrize("alignment", ["cycada", "selftrain"])
def test_methods_that_do_more_with_labels_run_to_their_scores(attentkit, partly, tmp_path, alignment):
    if alignment not in ALIGNMENTS:
        pytest.skip(f"{alignment} is not installed")
    of_translation = (
        "translate_steps=2",
        "adapt_steps=2",
        "translator={width=4,blocks=1}",
        "image_discriminator.width=4",
    )
    more = [f"--set={option}" for option in of_translation] if alignment == "cycada" else []
    trained_on(attentkit, partly, tmp_path / "run", *more, alignment=alignment)


def test_what_a_method_does_with_the_background_is_its_option(attentkit, partly, tmp_path):
    weights = []
    for option in ("marginal", "ignore", "background"):
        out = tmp_path / option
        trained_on(attentkit, partly, out, f"--set=partial={option}", "--set=exclusion=1.0", "--set=dice=1.0")
        weights.append((out / "segmentor.safetensors").read_bytes())
    assert len(set(weights)) == 3


class Unaware(REGISTRY.alignment("source_only")):
    """A method that says nothing about partial labels."""

    takes_partial_labels = False


def test_a_method_that_does_not_take_partial_labels_is_refused_them(partly, prepared):
    source, target = Prepared.open(partly / "mr.h5"), Prepared.open(partly / "ct.h5")
    with pytest.raises(ConfigError, match="'unaware' .*partial labels.* mr_2"):
        refuse_labels(Unaware, "unaware", source, target)
    whole = Prepared.open(prepared / "mr.h5")
    refuse_labels(Unaware, "unaware", whole, target)
    refuse_labels(REGISTRY.alignment("source_only"), "source_only", source, target)
    with pytest.raises(DataError, match="annotates the"):
        refuse_labels(Unaware, "unaware", _without(source, "mr_1"), target)


def _without(domain, case):
    manifest = {**domain.manifest, "cases": [r for r in domain.manifest["cases"] if r["id"] != case]}
    return Prepared(domain.path, manifest)


def test_an_organ_that_no_training_case_annotates_is_met_before_training(attentkit, volumes, partly, tmp_path):
    words = ["prepare", volumes / "mr", "--modality", "mr", "--size", 32, "--train", "mr_1", "--test", "mr_2"]
    assert attentkit(*words, "--organs", FOUR.replace("spleen=4", "spleen=?,*=0"), "-o", tmp_path / "mr.h5").code == 0
    (tmp_path / "ct.h5").symlink_to(partly / "ct.h5")
    assert says(attentkit(*train_words(tmp_path, tmp_path / "run")), 3, "no training case of", "annotates the spleen")
    assert not (tmp_path / "run").exists()


def test_shares_of_classes_come_from_the_cases_that_annotate_them(partly, prepared):
    whole, part = class_shares(Prepared.open(prepared / "mr.h5")), class_shares(Prepared.open(partly / "mr.h5"))
    assert part == pytest.approx(whole, rel=1e-6)


def test_a_look_takes_labels_of_complete_cases_alone(partly, tmp_path, volumes, attentkit):
    source, target = Prepared.open(partly / "mr.h5"), Prepared.open(partly / "ct.h5")
    assert Viewer(source, target, 0, torch.device("cpu")).y_s is not None
    # The other way round the only held-out cases are a complete and a partial one.
    seen = Viewer(target, source, 0, torch.device("cpu"))
    assert len(seen.x_s) == 4 and seen.y_s is not None


# Scores


def rows(alignment, dice):
    """Rows of one run; None where a case does not annotate the organ."""
    made_rows = []
    for (case, organ), value in dice.items():
        of = (alignment, "mr2ct", 0, case, organ)
        if value is None:
            made_rows.append(Score(*of, "scored", 0.0, "volumes"))
        else:
            made_rows += [Score(*of, "dice", value, "fraction"), Score(*of, "scored", 1.0, "volumes")]
            made_rows += [Score(*of, name, 0.0, "volumes") for name in ("missed", "invented", "absent", "undefined")]
    return made_rows


A = {
    ("p", "liver"): 0.9,
    ("p", "spleen"): 0.5,
    ("q", "liver"): 0.7,
    ("q", "spleen"): None,
    ("r", "liver"): 0.8,
    ("r", "spleen"): 0.7,
}
B = {**A, ("p", "liver"): 0.8, ("q", "liver"): 0.4, ("r", "spleen"): 0.1}


def test_means_and_tables_are_over_the_cases_that_annotate_an_organ():
    scores = rows("A", A) + rows("B", B)
    found = {(s.alignment, s.organ): s for s in summarise(scores, "dice", "cases")}
    assert found["A", "spleen"].mean == pytest.approx(0.6) and found["A", "spleen"].n == 2
    assert found["A", "liver"].mean == pytest.approx(0.8) and found["A", "liver"].total == 3
    assert found["A", "average"].mean == pytest.approx(0.7)
    (table,) = tables(scores, [MethodRow("A", False), MethodRow("B", False)], {"mr2ct": "MR to CT"})
    assert len(table.footnotes) == 1 and quotes(table.footnotes[0], "spleen: annotated in 2 of 3 cases")
    assert "(n=2)" in table.shown.rows[0][2]


def test_an_organ_that_no_test_case_annotates_is_said_to_be_out_of_the_average():
    scores = rows("A", {key: None if key[1] == "spleen" else value for key, value in A.items()})
    (table,) = tables(scores, [MethodRow("A", False)], {"mr2ct": "MR to CT"})
    assert table.organs == ("liver", "average")
    assert len(table.footnotes) == 1 and quotes(table.footnotes[0], "spleen: annotated in 0 of 3 cases; ... no part")


def test_pairs_are_of_the_cases_that_annotate_an_organ():
    found = values(rows("A", A) + rows("B", B), "dice", "fraction")
    a, b = found["mr2ct", "A"], found["mr2ct", "B"]
    spleen = paired_differences(a, b, "spleen")
    assert (
        spleen.cases == ("p", "r") and spleen.left_out == () and spleen.total == (2, 2) and spleen.undefined == (0, 0)
    )
    average = paired_differences(a, b)
    assert average.cases == ("p", "q", "r") and average.total == (5, 5) and average.undefined == (0, 0)
    assert average.differences.tolist() == pytest.approx([0.05, 0.3, 0.3])
    (of_spleen,) = [c for c in compare(rows("A", A) + rows("B", B), ["A", "B"], "A", ["mr2ct"]) if c.organ == "spleen"]
    assert of_spleen.cases == 2 and of_spleen.undefined == 0 and of_spleen.left_out == 0


def test_a_gap_is_not_taken_for_what_is_not_annotated(tmp_path):
    scores = rows("A", A)
    refuse_gaps(scores, tmp_path, ["p", "q", "r"], ["liver", "spleen"])
    lacking = [s for s in scores if (s.case, s.organ) != ("q", "spleen")]
    with pytest.raises(DataError, match="lacks rows of spleen in case q"):
        refuse_gaps(lacking, tmp_path)


def test_no_protocol_scores_what_is_not_annotated():
    truth = np.zeros((8, 8, 4), np.uint8)
    truth[2:5, 2:5, 1:3] = 1
    for name in ("3d-mm", "sifa", "attent-code", "chaos"):
        found = protocol(name).rows(truth * 2, truth, ("liver", "spleen"), (1, 1, 1), annotated=("liver",))
        assert [(r.metric, r.value) for r in found if r.organ == "spleen"] == [("scored", 0.0)]
        assert {r.metric for r in found if r.organ == "liver"} >= {"dice", "scored", "missed"}
        assert not any(math.isnan(r.value) for r in found if r.metric == "dice")


def test_evaluate_leaves_out_what_the_truth_does_not_annotate(attentkit, volumes, tmp_path):
    truth = volumes / "ct" / "labels" / "ct_1.nii.gz"
    words = ["evaluate", truth, truth, "--organs", FOUR, "--truth-organs", FOUR.replace("spleen=4", "spleen=?,*=0")]
    assert attentkit(*words, "--out", tmp_path / "s.csv").code == 0
    found = read_scores(tmp_path / "s.csv")
    assert [(s.metric, s.value) for s in found if s.organ == "spleen"] == [("scored", 0.0)]
    words = ["evaluate", truth, truth, "--organs", FOUR.replace("spleen=4", "spleen=?,*=0"), "--truth-organs", FOUR]
    assert says(attentkit(*words), 2, "no value for the spleen")
