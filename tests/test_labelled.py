"""Stages that label the whole target set now and then, and what their batches carry."""

import pytest
import torch

from attent_kit.config import ComponentConfig
from attent_kit.data.prepared.augment import Augmentation
from attent_kit.data.prepared.batches import training_batches
from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.conduct.train import TrainRequest
from attent_kit.engine.conduct.train import train as conduct
from attent_kit.engine.run.checkpoint import read, write
from attent_kit.engine.run.labelled import is_due, labelled, labels_of, packed, unpacked
from attent_kit.engine.train.train import TrainWatcher, train
from attent_kit.errors import ConfigError, RunError
from attent_kit.interfaces import IGNORE, Alignment, Batch, Stage, Task
from attent_kit.options import SegmentOptions, segmentor_optimizer, supervised_loss
from support.messages import quotes
from support.small_runs import REGISTRY, SMALL, Killed, equal, settings, weights, with_components

CPU = torch.device("cpu")
STILL = Augmentation(rotation=0, scale=0, shift=0)


class Rounds(Alignment):
    """Self-training in rounds: the labels of all slices are what the segmentor said of them last."""

    class Config(SegmentOptions):
        """No option of its own."""

        every: int = 4

    def __init__(self, config, build, task):
        super().__init__(config, build, task)
        self.S = build(config.segmentor)
        self.register_buffer("share", torch.zeros(task.classes))

    def optimizers(self):
        return {"S": segmentor_optimizer(self.S, self.config)}

    def stages(self):
        c = self.config
        return [
            Stage("first", self.first, 2, 2, ("S",)),
            Stage("rounds", self.step, c.segment_steps, 2, ("S",), label=self.label, label_every=c.every),
        ]

    def label(self, slices):
        assert not self.S.training and not torch.is_grad_enabled()
        # Twice through all of them, as a threshold or a prototype of the whole set would need it.
        self.share = torch.stack([self.S(x).logits.softmax(1).mean((0, 2, 3)) for x in slices]).mean(0)
        for x in slices:
            y = (self.S(x).logits - self.share.log().view(1, -1, 1, 1)).argmax(1)
            yield y.masked_fill(torch.rand(y.shape) < 0.2, IGNORE)

    def first(self, batch, update):
        assert batch.pseudo_t is None
        return self.learn(batch, batch.y_s, update)

    def step(self, batch, update):
        assert self.S.training
        return self.learn(batch, batch.pseudo_t, update)

    def learn(self, batch, labels, update):
        loss = supervised_loss(self.S(batch.x_t), labels, self.config)
        update("S", loss)
        return {"L": loss}

    def predict(self, x_t):
        return self.S(x_t).logits


WITH_ROUNDS = with_components(REGISTRY, ("alignments", "rounds", Rounds))
OPTIONS = {"name": "rounds", "segmentor": SMALL["segmentor"], "segment_steps": 7, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def domains(prepared):
    return prepared / "mr.h5", prepared / "ct.h5"


def run(domains, folder, watcher=None, **more):
    made = settings(domains, {**OPTIONS, **more.pop("options", {})}, WITH_ROUNDS, **more)
    return train(made, folder, WITH_ROUNDS, "cpu", **({} if watcher is None else {"watcher": watcher}))


def batches(domains, augmentation=STILL, resident=None):
    source, target = map(Prepared.open, domains)
    return training_batches(source, target, augmentation, 3, CPU, False, resident)


# When, and of what


def test_a_stage_labels_before_its_first_step_and_then_every_so_many():
    def said(every, label):
        stage = Stage("s", None, 10, 2, (), label=label, label_every=every)
        return [step for step in range(10) if is_due(stage, step)]

    assert said(4, print) == [0, 4, 8]
    assert said(0, print) == [0]
    assert said(4, None) == []


@pytest.mark.parametrize("resident", [True, False])
def test_it_is_given_every_training_slice_once_in_order_and_as_it_is(domains, resident):
    target = Prepared.open(domains[1])
    whole = batches(domains, Augmentation(), resident).whole_target(7)
    parts = [*whole]
    assert [len(p) for p in parts[:-1]] == [7] * (len(parts) - 1) and 0 < len(parts[-1]) <= 7
    expected = torch.cat([torch.from_numpy(target.slices(case)).float() for case in target.ids("train")])
    assert torch.equal(torch.cat(parts), expected)
    assert torch.equal(torch.cat([*whole]), expected)  # and once more


def test_labels_of_a_batch_are_those_of_its_slices(domains):
    drawn = batches(domains)
    count = sum(map(len, drawn.whole_target(50)))
    number = torch.arange(count) % 250
    drawn.pseudo = number.to(torch.uint8).view(-1, 1, 1).expand(-1, 64, 64).clone()
    every = torch.cat([*drawn.whole_target(50)])
    for step in range(3):
        batch = drawn.batch(step, 4)
        for x, y in zip(batch.x_t, batch.pseudo_t, strict=True):
            assert y.dtype == torch.int64 and y.min() == y.max()
            assert any(torch.allclose(x, every[n], atol=1e-5) for n in (number == y[0, 0]).nonzero().flatten())


def test_they_move_as_their_slices_do_and_draw_nothing(domains):
    plain, drawn = batches(domains, Augmentation()), batches(domains, Augmentation())
    drawn.pseudo = torch.cat([(x[:, 0] > 0).to(torch.uint8) for x in drawn.whole_target(50)])
    for step in range(3):
        one, other = plain.batch(step, 4), drawn.batch(step, 4)
        assert one.pseudo_t is None and equal(tuple(one[:3]), tuple(other[:3]))
        apart = ((other.x_t[:, 0] > 0) != other.pseudo_t.bool()).float().mean()
        unmoved = ((one.x_t[:, 0].flip(2) > 0) != other.pseudo_t.bool()).float().mean()
        assert apart < 0.05 and apart < unmoved / 3  # but for borders, which are between pixels


def test_labels_in_a_checkpoint_are_the_same_again():
    labels = torch.randint(256, (5, 8, 9), dtype=torch.uint8)
    assert torch.equal(unpacked(packed(labels)), labels)


# Runs


def test_a_killed_run_ends_in_the_same_bits(domains, tmp_path):
    run(domains, tmp_path / "undisturbed")
    expected = weights(tmp_path / "undisturbed")
    for killed_after in (2, 3, 6, 7):  # before the first labels, after them, and around the second ones

        def kill(progress, last=killed_after):
            if progress.step == last + 1:
                raise Killed

        folder = tmp_path / str(killed_after)
        with pytest.raises(Killed):
            run(domains, folder, TrainWatcher(stepped=kill))
        assert weights(folder)["step"] == killed_after and ("pseudo" in weights(folder)) == (killed_after > 2)
        run(domains, folder)
        assert equal(weights(folder), expected)


def test_more_steps_go_on_with_the_labels_that_are_there(domains, tmp_path):
    """With a constant rate, and where no new labels are due, a run of 5 and 2 more steps is one of 7."""
    run(domains, tmp_path / "seven")
    run(domains, tmp_path / "five", options={"segment_steps": 5})
    conduct(TrainRequest(tmp_path / "five", more_steps=2, out=tmp_path / "both", device="cpu"), WITH_ROUNDS)
    both, seven = weights(tmp_path / "both"), weights(tmp_path / "seven")
    assert equal(both["pseudo"], seven["pseudo"]) and equal(both["networks"], seven["networks"])


def test_labels_that_are_made_once_stay(domains, tmp_path):
    run(domains, tmp_path / "once", options={"every": 0})
    run(domains, tmp_path / "again", options={"every": 4})
    assert not equal(weights(tmp_path / "once")["pseudo"], weights(tmp_path / "again")["pseudo"])


def test_a_checkpoint_without_them_is_said(domains, tmp_path):
    def kill(progress):
        if progress.step == 5:
            raise Killed

    with pytest.raises(Killed):
        run(domains, tmp_path / "run", TrainWatcher(stepped=kill))
    held = read(tmp_path / "run/checkpoint.ckpt")
    write(tmp_path / "run/checkpoint.ckpt", {k: v for k, v in held.items() if k not in ("pseudo", "digest")})
    with pytest.raises(RunError) as caught:
        run(domains, tmp_path / "run")
    assert quotes(str(caught.value), "no labels of the target", "rounds")


# Answers that are no labels


class Says(Alignment):
    Config = ComponentConfig

    def __init__(self, answer):
        super().__init__(ComponentConfig(), None, Task(organs=("liver",)))
        self.answer = answer

    def optimizers(self):
        return {}

    def stages(self):
        return [Stage("s", None, 1, 2, (), label=self.answer)]

    def predict(self, x_t):
        return x_t


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda slices: [x[:, 0] for x in slices], ("torch.float32", "torch.int64")),
        (lambda slices: [x.long() for x in slices], ("[2, 1, 4, 4]", "[2, 4, 4]")),
        (lambda slices: [x[:1, 0].long() for x in slices], ("[1, 4, 4]", "[2, 4, 4]")),
        (lambda slices: [x[:, 0].long() for x in slices][:1], ("1 batches", "2")),
        (lambda slices: ["liver" for _ in slices], ("str", "torch.int64")),
        (lambda slices: [x[:, 0].long() + 2 for x in slices], ("2, which is none of 2 classes", "IGNORE")),
        (lambda slices: [x[:, 0].long() + 256 for x in slices], ("256", "2 classes")),
        (lambda slices: [x[:, 0].long() - 1 for x in slices], ("-1", "2 classes")),
    ],
)
def test_answers_that_are_not_labels_of_the_slices_are_refused(answer, words):
    method = Says(answer)
    with pytest.raises(ConfigError) as caught:
        labels_of(method, method.stages()[0], [torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)])
    assert quotes(str(caught.value), "stage 's' of Says", *words)


def test_a_batch_alone_can_stand_for_the_set():
    batch = Batch(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4), torch.ones(2, 1, 4, 4))
    method = Says(lambda slices: [x[:, 0].long() for x in slices])
    assert labelled(method, method.stages()[0], batch).pseudo_t.tolist() == [[[1] * 4] * 4] * 2
    plain = Says(None)
    assert labelled(plain, plain.stages()[0], batch) is batch
