"""Runs that are broken on purpose end collapsed, a healthy one does not, and being killed changes nothing of that."""

import json
import math
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch

from attent_kit.cli import run as run_command
from attent_kit.config import read_toml
from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.run.predict import entropy
from attent_kit.engine.run.record import Run
from attent_kit.engine.run.settings import run_settings
from attent_kit.engine.train import train as module
from attent_kit.engine.train.fit import Progress
from attent_kit.engine.train.glance import class_shares, correlation, looks_at
from attent_kit.engine.train.health import DiscriminatorWatch, Glance, Span, look_alarms
from attent_kit.engine.train.monitor import Monitor
from attent_kit.engine.train.train import TrainWatcher, train
from attent_kit.errors import RunError
from attent_kit.interfaces import Translator
from support.commands import prepare_words, train_words
from support.small_runs import REGISTRY, Killed, equal, settings, weights, with_components

NETWORKS = {
    "segmentor": {"encoder": "tu-test_resnet", "encoder_depth": 3, "decoder_channels": [16, 16, 8]},
    "output_discriminator": {"width": 4},
    "image_discriminator": {"width": 4, "layers": 1},
    "translator": {"width": 4, "blocks": 1},
}
SourceOnly, CycleGAN = (REGISTRY.alignment(name) for name in ("source_only", "cyclegan"))


class Background(SourceOnly):
    """Answers background everywhere, and has a discriminator that never learns."""

    predicts_with = ""

    def segment(self, batch, update):
        return {**super().segment(batch, update), "L_D": torch.tensor(math.log(2))}

    def predict(self, x_t):
        logits = torch.zeros_like(self.S(x_t).logits)
        logits[:, 0] = 50.0
        return logits

    def discriminator_losses(self):
        return {"L_D": "bce"}


class NotANumber(SourceOnly):
    """Its losses are fine and its answers are not."""

    predicts_with = ""

    def predict(self, x_t):
        return self.S(x_t).logits * math.nan


class Negative(Translator):
    """Turns contrast round."""

    def __init__(self, config, task):
        super().__init__(config, task)
        self.unused = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return -x + 0 * self.unused


@pytest.fixture(scope="module")
def registry():
    return with_components(
        REGISTRY,
        ("alignments", "background", Background),
        ("alignments", "not_a_number", NotANumber),
        ("translators", "negative", Negative),
    )


@pytest.fixture(scope="module")
def domains(prepared):
    return prepared / "mr.h5", prepared / "ct.h5"


def trained(domains, registry, folder, name, warned=lambda sentence: None, report=lambda p: None, top=None, **options):
    """monitor.json of a run of 120 steps, unless the options say otherwise."""
    fields = registry.alignment(name).Config.model_fields
    known = {"segment_steps": 120, "segment_batch_size": 2, "learning_rate": 5e-3, **NETWORKS, **options}
    alignment = {"name": name, **{k: v for k, v in known.items() if k in fields}}
    data = {"source": str(domains[0]), "target": str(domains[1])}
    given = {"alignment": alignment, "data": data, "seed": 5, "save_seconds": 1000.0, "snapshots": 0, **(top or {})}
    train(run_settings(given, registry), folder, registry, "cpu", watcher=TrainWatcher(stepped=report, warned=warned))
    return json.loads((folder / "monitor.json").read_text())


def checks(monitor):
    return {warning["check"] for warning in monitor["warnings"]}


# How runs end


def test_a_healthy_run_does_not_end_collapsed_and_warns_of_nothing(domains, registry, tmp_path):
    said = []
    monitor = trained(domains, registry, tmp_path / "run", "supervised", said.append, segment_steps=150)
    assert (monitor["collapsed"], monitor["warnings"], said) == (False, [], [])
    assert [look["step"] for look in monitor["looks"]] == [150]


def test_a_method_that_answers_background_has_collapsed(domains, registry, tmp_path):
    said = []
    monitor = trained(domains, registry, tmp_path / "run", "background", said.append, segment_steps=20)
    assert monitor["collapsed"]
    ends = [(w["step"], w["stage"], w["check"]) for w in monitor["warnings"]]
    assert ends == [(20, "segment", "entropy-collapse")] + 4 * [(20, "segment", "organ-vanished")]
    assert sorted(said) == sorted(f"step 20: {w['sentence']}" for w in monitor["warnings"])
    assert "is predicted as background with a mean entropy of" in monitor["warnings"][0]["sentence"]


def test_a_learning_rate_beyond_reason_ends_collapsed(domains, registry, tmp_path):
    """With Adam at rate 1000 the losses stay finite; what is left predicts one class or some."""
    monitor = trained(domains, registry, tmp_path / "run", "supervised", learning_rate=1e3, segment_steps=40)
    assert monitor["collapsed"] and "organ-vanished" in checks(monitor)


def test_an_entropy_term_heavier_than_any_label_ends_collapsed(domains, registry, tmp_path):
    """MinEnt, which is content with one class everywhere."""
    options = {"objective": "minimize", "adversarial": 1e6, "segment_steps": 60}
    monitor = trained(domains, registry, tmp_path / "run", "entropy", **options)
    assert monitor["collapsed"] and checks(monitor) & {"organ-vanished", "background-vanished"}


def test_a_translator_that_turns_contrast_round_ends_collapsed(domains, registry, tmp_path):
    options = {"translator": {"name": "negative"}, "translate_steps": 10, "segment_steps": 10}
    monitor = trained(domains, registry, tmp_path / "run", "cyclegan", **options)
    assert monitor["collapsed"] and "inversion" in checks(monitor)
    assert monitor["looks"][-1]["correlation"] == -1.0


def test_answers_that_are_no_numbers_end_collapsed(domains, registry, tmp_path):
    monitor = trained(domains, registry, tmp_path / "run", "not_a_number", segment_steps=2)
    assert monitor["collapsed"] and checks(monitor) == {"not-finite"}


def test_a_loss_that_is_no_number_ends_the_run_and_is_written_down(domains, registry, tmp_path):
    said = []
    with pytest.raises(RunError, match="no longer a finite number") as error:
        trained(domains, registry, tmp_path / "run", "source_only", said.append, learning_rate=1e38)
    monitor = json.loads((tmp_path / "run/monitor.json").read_text())
    assert monitor["collapsed"] and checks(monitor) == {"not-finite"}
    assert [w["sentence"] for w in monitor["warnings"]] == [str(error.value)] and said == []


def test_a_discriminator_alone_is_a_warning_and_no_collapse(domains, registry, tmp_path):
    class Dead(Background):
        """Answers as W/o adaptation."""

        def predict(self, x_t):
            return self.S(x_t).logits

    own = with_components(registry, ("alignments", "dead", Dead))
    monitor = trained((domains[0], domains[0]), own, tmp_path / "run", "dead", top={"log_steps": 4})
    assert (monitor["collapsed"], checks(monitor)) == (False, {"discriminator-stuck"})
    assert [w["step"] for w in monitor["warnings"]] == [24]


def test_the_command_line_says_what_is_wrong_while_it_trains(attentkit, prepared, tmp_path):
    words = ("--set=learning_rate=1000.0", "--set=segment_steps=40")
    outcome = attentkit(*train_words(prepared, tmp_path / "run", *words))
    assert outcome.code == 0
    assert "Warning: step 40: " in outcome.err and "has vanished" in outcome.err


# Being killed


@pytest.fixture(scope="module", params=[0, 5])
def snapshots(request):
    return request.param


@pytest.fixture(scope="module")
def undisturbed(domains, registry, tmp_path_factory, snapshots):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    trained(domains, registry, folder, "background", segment_steps=23, top={"log_steps": 4, "snapshots": snapshots})
    return (folder / "monitor.json").read_bytes()


@pytest.mark.parametrize("killed_after", [2, 10, 20, 22])
def test_a_run_that_was_killed_ends_in_the_same_monitor(
    domains, registry, undisturbed, tmp_path, killed_after, snapshots
):
    """Its checkpoints cut every line of the log short, those of the other none."""

    def kill(progress):
        if progress.step == killed_after + 1:
            raise Killed

    more = {"segment_steps": 23, "top": {"log_steps": 4, "save_seconds": 0.0, "snapshots": snapshots}}
    with pytest.raises(Killed):
        trained(domains, registry, tmp_path / "run", "background", report=kill, **more)
    assert weights(tmp_path / "run")["step"] == killed_after
    trained(domains, registry, tmp_path / "run", "background", **more)
    assert (tmp_path / "run/monitor.json").read_bytes() == undisturbed
    monitor = json.loads(undisturbed)
    assert [look["step"] for look in monitor["looks"]] == ([5, 10, 14, 19, 23] if snapshots else [23])
    assert [w["step"] for w in monitor["warnings"]] == [20] + 5 * [23]


def test_training_a_finished_run_again_changes_nothing_of_it(domains, registry, tmp_path):
    first = trained(domains, registry, tmp_path / "run", "background", segment_steps=3)
    assert trained(domains, registry, tmp_path / "run", "background", segment_steps=3) == first


def test_what_snapshots_saw_is_kept_up_to_the_checkpoint_and_no_further(tmp_path):
    """Steps 20 and 40 were looked at, the checkpoint is that of step 30."""

    def monitor(said):
        span = Span("segment", 0, 60)
        look = lambda step, stage: Glance(step, stage, 8, True, (0.9, 0.1), 0.1, -0.9 if step < 50 else 0.9)  # noqa: E731
        return Monitor(
            RunFolder(tmp_path), DiscriminatorWatch({}, [span], 10), look, (0.9, 0.1), ("liver",), said.append
        )

    first, second = [], []
    watcher = monitor(first)
    watcher.begin(0)
    for step in (20, 40):
        watcher.see(Progress("segment", step, 60, None, {"entropy": 0.1}))
    watcher.see(Progress("segment", 41, 60, None))
    assert [s.partition(":")[0] for s in first] == ["step 20"]
    assert [look["step"] for look in json.loads((tmp_path / "monitor.json").read_text())["looks"]] == [20, 40]
    again = monitor(second)
    again.begin(30)
    assert [look["step"] for look in json.loads((tmp_path / "monitor.json").read_text())["looks"]] == [20]
    again.see(Progress("segment", 40, 60, None, {"entropy": 0.1}))
    again.end()
    state = json.loads((tmp_path / "monitor.json").read_text())
    assert [look["step"] for look in state["looks"]] == [20, 40, 60]
    assert [w["step"] for w in state["warnings"]] == [20] and second == [] and not state["collapsed"]


def test_what_a_snapshot_of_the_last_step_saw_is_not_looked_at_again(tmp_path):
    taken = []

    def look(step, stage):
        taken.append(step)
        return Glance(step, stage, 8, True, (0.9, 0.1), 0.1, 0.9)

    watch = DiscriminatorWatch({}, [Span("segment", 0, 60)], 10)
    watcher = Monitor(RunFolder(tmp_path), watch, look, (0.9, 0.1), ("liver",), lambda sentence: None)
    watcher.begin(0)
    for step in (30, 60):
        watcher.see(Progress("segment", step, 60, None, {"entropy": 0.1}))
    watcher.end()
    assert taken == [30, 60]


# Looking


def test_looking_at_every_step_changes_no_bit_of_the_training(domains, tmp_path, monkeypatch):
    class Unwatched:
        begin = see = not_finite = lambda self, step: None
        end = lambda self: None  # noqa: E731

    seen = []

    def looking(alignment, run, source, target, device, warned):
        look = looks_at(alignment, target, device)

        class Watcher(Unwatched):
            def see(self, progress):
                modes = [child.training for child in alignment.children()]
                seen.append(look(progress.step, progress.stage))
                assert modes == [child.training for child in alignment.children()]

        return Watcher()

    monkeypatch.setattr(module, "monitor_of", lambda *_: Unwatched())
    train(settings(domains), tmp_path / "unwatched", REGISTRY, "cpu")
    monkeypatch.setattr(module, "monitor_of", looking)
    train(settings(domains), tmp_path / "watched", REGISTRY, "cpu")
    assert len(seen) == 12 and all(look.correlation is not None for look in seen)
    assert equal(weights(tmp_path / "watched"), weights(tmp_path / "unwatched"))


def test_entropy_is_0_where_certain_and_1_where_nothing_is_known():
    certain, uniform = np.zeros((4, 2, 2)), np.full((4, 2, 2), 0.25)
    certain[1] = 1
    assert entropy(certain).mean() == pytest.approx(0, abs=1e-12) and entropy(uniform).mean() == pytest.approx(1)
    half = np.zeros((4, 1))
    half[:2] = 0.5
    assert entropy(half).mean() == pytest.approx(0.5), "ln 2 / ln 4"


def test_correlation_is_the_median_over_slices_that_have_more_than_one_value():
    x = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [1.0, 1.0]]).reshape(4, 1, 1, 2)
    y = np.array([[0.0, 5.0], [1.0, 0.0], [2.0, 1.0], [0.0, 1.0]]).reshape(4, 1, 1, 2)
    assert correlation(x, y) == -1
    assert correlation(x[:1], y[:1]) == 1 and correlation(x[3:], y[3:]) == 0


def test_parts_of_the_classes_are_those_of_the_validation_labels(prepared):
    source = Prepared.open(prepared / "mr.h5")
    labels = source.label_slices("mr_2")[[z for case, z in source.index(["mr_2"])]]
    shares = class_shares(source)
    assert shares == pytest.approx([(labels == k).mean() for k in range(5)])
    assert min(shares) > 0 and sum(shares) == pytest.approx(1)


def test_an_organ_that_no_validation_case_shows_has_its_part_of_the_training_labels(volumes, tmp_path):
    shutil.copytree(volumes / "mr", tmp_path / "mr")
    path = tmp_path / "mr/labels/mr_2.nii.gz"
    image = nib.load(path)
    labels = np.asarray(image.dataobj).astype(np.uint8)
    nib.save(nib.Nifti1Image(np.where(labels == 4, 0, labels).astype(np.uint8), image.affine), path)
    assert run_command(prepare_words(tmp_path / "mr", tmp_path / "mr.h5", "mr")) == 0
    source = Prepared.open(tmp_path / "mr.h5")
    seen = source.labels(["mr_1", "mr_2"])
    assert class_shares(source) == pytest.approx([(seen == k).mean() for k in range(5)])
    look = Glance(9, "segment", 1, True, (0.9, 0.05, 0.03, 0.02, 0.0), 0.5, None)
    (alarm,) = look_alarms([look], class_shares(source), source.organs, ended=True)
    assert alarm.check == "organ-vanished" and alarm.sentence.startswith("spleen has vanished")


def test_a_line_of_the_log_holds_means_over_the_steps_that_have_a_loss(domains, tmp_path):
    """1, 2 and 6 are 3 on average; of 0.5 and 1 that are there it is 0.75."""
    run = Run(RunFolder(tmp_path / "run"), settings(domains, log_steps=3), {})
    assert run.config == read_toml(run.folder.config)
    steps = [{"L_seg": 1.0, "L_gate": 0.5}, {"L_seg": 2.0}, {"L_seg": 6.0, "L_gate": 1.0}]
    answers = [run.log(n, "segment", {k: torch.tensor(v) for k, v in step.items()}) for n, step in enumerate(steps)]
    assert answers == [None, None, {"L_seg": 3.0, "L_gate": 0.75}]
    line = json.loads((tmp_path / "run/log.jsonl").read_text())
    assert line == {"step": 2, "stage": "segment", "L_seg": 3.0, "L_gate": 0.75}
