"""Snapshots change nothing of the training, come back to the same bytes after a kill, and are looked at without labels."""

import shutil

import numpy as np
import pytest
import torch

from attent_kit.build import Builder, build_alignment
from attent_kit.data.prepared.file import IGNORE, Prepared
from attent_kit.engine.run.assemble import setup, train_only
from attent_kit.engine.run.device import launch
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.run.probe import networks_of_predict
from attent_kit.engine.run.settings import run_settings
from attent_kit.engine.run.stages import parts_of
from attent_kit.engine.snapshots.look import Viewer, class_ratios
from attent_kit.engine.snapshots.snapshots import Snapshots, evenly_spaced, load_selectors, load_snapshot
from attent_kit.engine.train.train import TrainOptions, TrainWatcher, train
from attent_kit.errors import AttentKitError, RunError
from attent_kit.interfaces import Task
from attent_kit.plugins import load
from attent_kit.registry import Component
from attent_kit.report.selection import read_selection
from attent_kit.selectors import Selector
from attent_kit.teacher import mean_teacher
from support.small_runs import Killed, equal, with_components

REGISTRY = load().registry
NETWORKS = {
    "segmentor": {"encoder": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [8, 8, 8]},
    "translator": {"width": 4, "blocks": 1},
    "image_discriminator": {"width": 4, "layers": 1},
    "entropy_discriminator": {"width": 4},
    "translate_steps": 3,
    "segment_steps": 6,
    "adapt_steps": 4,
    "translate_batch_size": 2,
    "segment_batch_size": 2,
}
CPU = torch.device("cpu")
ALL = {"entropy", "im", "snd", "class-ratio", "mmd", "coral", "cycle", "source-dice"}


@pytest.fixture(scope="module")
def domains(prepared):
    return prepared / "mr.h5", prepared / "ct.h5"


def alignment_options(name, registry=REGISTRY):
    fields = registry.alignment(name).Config.model_fields
    return {"name": name, **{k: v for k, v in NETWORKS.items() if k in fields}}


def settings(domains, name="attent", registry=REGISTRY, snapshots=3, **more):
    data = {"source": str(domains[0]), "target": str(domains[1])}
    options = {"alignment": alignment_options(name, registry), "data": data, "snapshots": snapshots, **more}
    return run_settings({"save_seconds": 0.0, "seed": 5, **options}, registry)


def built(name, seed=5):
    """An alignment on the CPU with its optimizers."""
    choice = settings(("mr.h5", "ct.h5"), name).alignment
    alignment = build_alignment(choice, REGISTRY, Task(), seed)
    return alignment, setup(alignment, launch("cpu", "32-true"))


def state(path):
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def whole(domains, tmp_path_factory):
    """AttENT with snapshots after 5, 7 and 9 of its 9 steps."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    reports = []
    scores = train(settings(domains), folder, REGISTRY, "cpu", watcher=TrainWatcher(stepped=reports.append))
    return folder, scores, reports


# When, and of what


@pytest.mark.parametrize(
    ("counted", "lengths", "count", "steps"),
    [
        ([10], [10], 5, [2, 4, 6, 8, 10]),
        ([0, 10], [6, 10], 5, [8, 10, 12, 14, 16]),
        ([2, 0, 4], [2, 3, 4], 3, [2, 7, 9]),
        ([3, 4, 0], [3, 4, 9], 2, [4, 7]),
        ([3], [3], 10, [1, 2, 3]),
        ([7], [7], 2, [4, 7]),
        ([7], [7], 0, []),
        ([0], [7], 3, []),
    ],
)
def test_snapshots_are_evenly_spaced_over_the_stages_that_count(counted, lengths, count, steps):
    assert (evenly_spaced(counted, lengths, count) if count else []) == steps


@pytest.mark.parametrize(
    ("name", "called", "steps", "kept"),
    [
        ("source_only", ["S"], [2, 4, 6], ["S"]),
        ("cyclegan", ["S"], [5, 7, 9], ["S"]),
        # G_ts answers too, but is not trained any more once S is.
        ("attent", ["G_ts", "S"], [5, 7, 9], ["S"]),
        ("synsegnet", ["S"], [1, 2, 3], ["S"]),
        # Six steps of a source network and three of translation, then 6 + 4 of the segmentor in two stages.
        ("cycada", ["S"], [13, 16, 19], ["S"]),
    ],
)
def test_snapshots_begin_when_all_networks_of_predict_are_trained_and_hold_those_that_still_change(
    domains, tmp_path, name, called, steps, kept
):
    alignment, optimizers = built(name)
    assert networks_of_predict(alignment, 32, CPU) == called
    source, target = map(Prepared.open, domains)
    snapshots = Snapshots(RunFolder(tmp_path), 3, load_selectors(REGISTRY), source, target, 0, CPU)
    snapshots.plan(alignment, optimizers, parts_of(alignment))
    assert snapshots.steps == steps
    scores = snapshots.take(alignment, steps[0])
    assert set(state(RunFolder(tmp_path).snapshot(steps[0]))["networks"]) == {*kept, ""}
    assert {row.selector for row in read_selection(tmp_path / "selection.csv")} == set(scores)


def test_a_mean_teacher_that_answers_has_snapshots_of_the_stage_that_trains_its_student(domains, tmp_path):
    class Taught(REGISTRY.alignment("source_only")):
        predicts_with = "T"

        def __init__(self, config, build, task):
            super().__init__(config, build, task)
            self.T = mean_teacher(self.S)

        def predict(self, x_t):
            return self.T(x_t).logits

    alignment = Taught(built("source_only")[0].config, Builder(REGISTRY, Task(), 0), Task())
    optimizers = setup(alignment, launch("cpu", "32-true"))
    snapshots = Snapshots(RunFolder(tmp_path), 3, load_selectors(REGISTRY), *map(Prepared.open, domains), 0, CPU)
    snapshots.plan(alignment, optimizers, parts_of(alignment))
    assert snapshots.steps == [2, 4, 6]
    assert {"entropy", "im"} <= set(snapshots.take(alignment, 2))
    assert set(state(RunFolder(tmp_path).snapshot(2))["networks"]) == {"T", ""}
    train_only(alignment, optimizers, alignment.stages()[0])
    assert alignment.S.training and not alignment.T.training


# Training is as it was


@pytest.mark.parametrize("name", ["attent", "synsegnet", "source_only"])
def test_weights_log_and_scores_are_bit_equal_with_and_without_snapshots(domains, tmp_path, name):
    with_them = train(settings(domains, name), tmp_path / "with", REGISTRY, "cpu")
    without = train(settings(domains, name, snapshots=0), tmp_path / "without", REGISTRY, "cpu")
    assert equal(state(tmp_path / "with/checkpoint.ckpt"), state(tmp_path / "without/checkpoint.ckpt"))
    for file in ("log.jsonl", "segmentor.safetensors", "scores.csv"):
        assert (tmp_path / "with" / file).read_bytes() == (tmp_path / "without" / file).read_bytes()
    assert str(with_them) == str(without)
    assert (tmp_path / "with/selection.csv").exists() and not (tmp_path / "without/selection.csv").exists()
    assert not (tmp_path / "without/snapshots").exists()


@pytest.mark.parametrize("killed_at", [2, 4, 5, 6, 7, 9])
def test_a_killed_and_resumed_run_ends_in_the_same_selection_and_snapshots(domains, whole, tmp_path, killed_at):
    """Killed after the step and its snapshot, and before its checkpoint."""
    folder, _, _ = whole

    def kill(progress):
        if progress.step == killed_at:
            raise Killed

    with pytest.raises(Killed):
        train(settings(domains), tmp_path / "run", REGISTRY, "cpu", watcher=TrainWatcher(stepped=kill))
    train(settings(domains), tmp_path / "run", REGISTRY, "cpu")
    assert (tmp_path / "run/selection.csv").read_bytes() == (folder / "selection.csv").read_bytes()
    files = sorted(path.name for path in (folder / "snapshots").iterdir())
    assert sorted(path.name for path in (tmp_path / "run/snapshots").iterdir()) == files == [
        "step0000005.ckpt", "step0000007.ckpt",
    ]  # fmt: skip
    for name in files:
        assert equal(state(tmp_path / "run/snapshots" / name), state(folder / "snapshots" / name))


def test_going_back_drops_snapshots_of_later_steps_and_keeps_that_of_the_step_itself(domains, whole, tmp_path):
    folder = shutil.copytree(whole[0], tmp_path / "run")
    snapshots = Snapshots(RunFolder(folder), 3, {}, *map(Prepared.open, domains), 5, CPU)
    for step, rows, files in ((7, {5, 7}, {"step0000005.ckpt", "step0000007.ckpt"}), (6, {5}, {"step0000005.ckpt"})):
        snapshots.rewind(step, 9)
        assert {row.step for row in read_selection(folder / "selection.csv")} == rows
        assert {path.name for path in (folder / "snapshots").iterdir()} == files
    snapshots.rewind(0, 9)
    assert not (folder / "selection.csv").exists() and list((folder / "snapshots").iterdir()) == []


def test_a_run_that_begins_again_forgets_snapshots_and_what_was_chosen_of_them(domains, whole, tmp_path):
    folder = shutil.copytree(whole[0], tmp_path / "run")
    before = (folder / "selection.csv").read_bytes()
    (folder / "selections/im").mkdir(parents=True)
    (folder / "grades.csv").write_text("of another training")
    (folder / "snapshots/step0000006.ckpt").write_text("of another training")
    (folder / "checkpoint.ckpt").unlink()
    train(settings(domains), folder, REGISTRY, "cpu")
    assert (folder / "selection.csv").read_bytes() == before
    assert not (folder / "selections").exists() and not (folder / "grades.csv").exists()
    assert not (folder / "snapshots/step0000006.ckpt").exists()


def test_a_finished_run_is_left_as_it_is(domains, whole, tmp_path):
    folder = shutil.copytree(whole[0], tmp_path / "run")
    times = {path: path.stat().st_mtime_ns for path in (folder / "snapshots").iterdir()}
    train(settings(domains, snapshots=2), folder, REGISTRY, "cpu")
    assert {path: path.stat().st_mtime_ns for path in (folder / "snapshots").iterdir()} == times
    assert (folder / "selection.csv").read_bytes() == (whole[0] / "selection.csv").read_bytes()


def test_a_snapshot_holds_the_networks_of_its_step_and_the_last_one_is_the_checkpoint(domains, whole, tmp_path):
    folder, _, _ = whole

    def stop(progress):
        if progress.step == 8:
            raise Killed  # the checkpoint is that of step 7

    with pytest.raises(Killed):
        train(settings(domains), tmp_path / "run", REGISTRY, "cpu", watcher=TrainWatcher(stepped=stop))
    at_seven = state(tmp_path / "run/checkpoint.ckpt")
    assert at_seven["step"] == 7
    alignment, _ = built("attent", seed=99)
    end = state(folder / "checkpoint.ckpt")["networks"]
    for step, networks in ((7, at_seven["networks"]), (9, end)):
        for name, weights in end.items():
            if name:
                getattr(alignment, name).load_state_dict(weights)
        load_snapshot(RunFolder(folder), alignment, step, [5, 7, 9])
        assert equal(dict(alignment.S.state_dict()), dict(networks["S"])), step
    assert not equal(at_seven["networks"]["S"], end["S"])


def test_the_loop_reports_the_scores_of_a_snapshot_once_it_is_taken(whole):
    folder, _, reports = whole
    told = {progress.step: progress.scores for progress in reports if progress.scores is not None}
    assert list(told) == [5, 7, 9] and all(set(scores) == ALL for scores in told.values())
    assert [(r.step, r.selector, r.value) for r in read_selection(folder / "selection.csv")] == [
        (step, name, value) for step, scores in told.items() for name, value in scores.items()
    ]


def test_a_shared_first_stage_is_taken_over_unless_snapshots_fall_into_it(domains, tmp_path):
    class Recipe(REGISTRY.alignment("source_only")):
        """Shares the one stage that it has."""

        def stages(self):
            return [stage._replace(recipe=("shared",)) for stage in super().stages()]

    registry = with_components(REGISTRY, ("alignments", "recipe", Recipe))

    def steps(folder, **more):
        seen = []
        run = settings(domains, "recipe", registry, **more)
        watcher = TrainWatcher(stepped=lambda p: seen.append(p.step))
        train(run, tmp_path / folder, registry, "cpu", TrainOptions(shared=tmp_path / "shared"), watcher)
        return seen

    assert len(steps("first")) == 6
    assert len(steps("second")) == 6
    assert len(steps("third", snapshots=0)) == 0
    assert (tmp_path / "first/selection.csv").read_bytes() == (tmp_path / "second/selection.csv").read_bytes()


# What is looked at


def test_a_look_is_at_the_same_slices_of_target_training_and_source_validation_cases(domains):
    source, target = map(Prepared.open, domains)
    viewer, again = (Viewer(source, target, 0, CPU) for _ in range(2))
    assert np.array_equal(viewer.x_t, again.x_t) and np.array_equal(viewer.x_s, again.x_s)
    (trained,), (validated,) = target.ids("train"), source.ids("val")
    assert {x.tobytes() for x in viewer.x_t} <= {x.tobytes() for x in target.slices(trained)}
    rows = {x.tobytes(): y for x, y in zip(source.slices(validated), source.label_slices(validated), strict=True)}
    for x, y in zip(viewer.x_s, viewer.y_s, strict=True):
        assert np.array_equal(rows[x.tobytes()], y)


def test_labels_of_source_cases_that_are_trained_on_are_not_in_a_look(domains, monkeypatch):
    source, target = map(Prepared.open, domains)
    of_training = source.cases_in("train")
    monkeypatch.setattr(source, "cases_in", lambda split: of_training if split == "train" else ())
    viewer = Viewer(source, target, 0, CPU)
    assert viewer.y_s is None and len(viewer.x_s) > 0


def test_without_validation_cases_the_source_is_looked_at_in_its_test_cases(domains, monkeypatch):
    source, target = map(Prepared.open, domains)
    splits = {"train": source.cases_in("train"), "val": (), "test": source.cases_in("test")}
    monkeypatch.setattr(source, "cases_in", splits.get)
    viewer = Viewer(source, target, 0, CPU)
    assert {x.tobytes() for x in viewer.x_s} <= {x.tobytes() for x in source.slices(splits["test"][0].id)}
    assert viewer.y_s is not None


def test_no_label_of_the_target_is_read_for_a_snapshot(domains, tmp_path, monkeypatch):
    source, target = map(Prepared.open, domains)
    read = Prepared._read

    def guarded(self, case, name, selection=()):
        assert self.domain != "ct" or name == "images", "a target label was read"
        return read(self, case, name, selection)

    monkeypatch.setattr(Prepared, "_read", guarded)
    alignment, optimizers = built("attent")
    snapshots = Snapshots(RunFolder(tmp_path), 1, load_selectors(REGISTRY), source, target, 0, CPU)
    snapshots.plan(alignment, optimizers, parts_of(alignment))
    assert set(snapshots.take(alignment, 9)) == ALL
    with pytest.raises(AssertionError, match="a target label was read"):
        target.labels(target.ids("train"))


def test_class_ratios_are_those_of_all_labelled_pixels_of_source_training_slices(domains, monkeypatch):
    source = Prepared.open(domains[0])
    (case,) = source.ids("train")
    values = source.labels([case])
    expected = [float((values == k).mean()) for k in range(5)]
    assert class_ratios(source).tolist() == pytest.approx(expected)
    half = np.where(np.arange(values.shape[-1]) < 16, values, IGNORE)
    monkeypatch.setattr(source, "labels", lambda cases: half)
    expected = [float((values[..., :16] == k).mean()) for k in range(5)]
    assert class_ratios(source).tolist() == pytest.approx(expected)


def test_a_look_sees_what_the_networks_answer(domains):
    """AttENT: target slices as predict sees them, the source as it is, the round trip through both translators."""
    source, target = map(Prepared.open, domains)
    viewer = Viewer(source, target, 0, CPU)
    alignment, _ = built("attent")
    alignment.train()
    look = viewer.look(alignment)
    assert all(module.training for module in alignment.modules())
    assert not any(child._forward_hooks for child in alignment.children())
    x_t, x_s = (torch.from_numpy(x).float() for x in (viewer.x_t, viewer.x_s))
    alignment.eval()
    with torch.no_grad():
        x_ts = alignment.G_ts(x_t)
        s, t = alignment.S(x_s), alignment.S(x_ts)
        there_and_back = alignment.S(alignment.G_ts(alignment.G_st(x_ts)))
    assert torch.equal(look.p_t, t.logits.softmax(1)) and torch.equal(look.p_s, s.logits.softmax(1))
    assert torch.equal(look.p_cycle, there_and_back.logits.softmax(1))
    for f, features in ((look.f_s, s.features), (look.f_t, t.features)):
        assert {tuple(row.tolist()) for row in f} == {tuple(r.tolist()) for r in features.movedim(1, -1).flatten(0, 2)}


@pytest.mark.parametrize("name", ["cyclegan", "synsegnet", "cycada", "sifa"])
def test_methods_that_train_on_translated_source_images_are_looked_at_with_those(domains, name):
    source, target = map(Prepared.open, domains)
    viewer = Viewer(source, target, 0, CPU)
    small = {"sifa": {"segmentor": {"width": 2}, "decoder_width": 4, "output_discriminator": {"width": 4}}}
    options = {**alignment_options(name), **small.get(name, {})}
    data = {"source": "mr.h5", "target": "ct.h5"}
    choice = run_settings({"alignment": options, "data": data}, REGISTRY).alignment
    alignment = build_alignment(choice, REGISTRY, Task(), 0)
    look = viewer.look(alignment)
    x_s, G = torch.from_numpy(viewer.x_s).float(), getattr(alignment, "G_st", None) or alignment.G
    alignment.eval()
    with torch.no_grad():
        assert torch.equal(look.p_s, alignment.S(G(x_s)).logits.softmax(1))
        assert not torch.equal(look.p_s, alignment.S(x_s).logits.softmax(1))
    assert look.p_cycle is not None


def test_a_method_that_never_sees_the_source_is_not_judged_by_it(domains, tmp_path):
    train(settings(domains, "supervised"), tmp_path / "run", REGISTRY, "cpu")
    assert {row.selector for row in read_selection(tmp_path / "run/selection.csv")} == {
        "entropy",
        "im",
        "snd",
        "class-ratio",
    }


# Selectors of strangers


def with_selector(component, name="mine"):
    registry = with_components(REGISTRY)
    registry.add(Component("selectors", name, component, "mine", "attentkit-mine", "1.0"))
    return registry


class Failing(Selector):
    """Fails."""

    better = "higher"

    def score(self, look):
        raise ValueError("too bright")


def test_a_selector_that_fails_ends_the_run_in_a_sentence_and_without_it_the_run_goes_on(domains, tmp_path, whole):
    with pytest.raises(RunError, match=r"'mine' failed at step 5: ValueError: too bright.*--set snapshots=0"):
        train(settings(domains), tmp_path / "run", with_selector(Failing), "cpu")
    train(settings(domains), tmp_path / "run", REGISTRY, "cpu")
    assert (tmp_path / "run/selection.csv").read_bytes() == (whole[0] / "selection.csv").read_bytes()


@pytest.mark.parametrize(
    ("component", "name", "sentence"),
    [
        (type("Odd", (), {}), "mine", "attent-kit's Selector"),
        (type("Odd", (Selector,), {"score": lambda self, look: 1.0}), "mine", "higher or a lower score is better"),
        (Failing, "last", "a word of --select already"),
    ],
)
def test_a_selector_that_is_none_is_met_before_anything_is_trained(domains, tmp_path, component, name, sentence):
    with pytest.raises(AttentKitError, match=sentence):
        train(settings(domains), tmp_path / "run", with_selector(component, name), "cpu")
    assert not (tmp_path / "run").exists()
