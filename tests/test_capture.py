"""Steps repeated as a graph, with everything but the CUDA graph itself: something that runs on a CPU stands for it."""

import json

import pytest
import torch
from torch.optim import LBFGS, SGD, Adam

from attent_kit.engine.run.assemble import load_optimizer_states, optimizer_states
from attent_kit.engine.train import capture
from attent_kit.engine.train.fit import seed_step
from attent_kit.engine.train.train import TrainWatcher, train
from attent_kit.interfaces import Batch
from support.small_runs import REGISTRY, SMALL, Killed, settings, weights

SMALL = {**SMALL, "translate_steps": 10, "segment_steps": 10}


class Repeats:
    """Runs what was recorded."""

    made = []

    def __init__(self, device):
        self.replays, self.forgotten = 0, False
        self.made.append(self)

    def warm(self, step):
        return step()

    def record(self, step):
        self.step = step

    def replay(self):
        self.replays += 1
        self.step()

    def forget(self):
        self.forgotten = True


class FreezesChance(Repeats):
    """Every step has the random numbers of one."""

    def replay(self):
        seed_step(7, 7)
        super().replay()


class FreezesTheBatch(Repeats):
    """Every step has the slices of the first."""

    def record(self, step):
        super().record(step)
        taken = step.__closure__
        (static,) = [c.cell_contents for c in taken if isinstance(c.cell_contents, Batch)]
        self.static, self.first = static, [x.clone() for x in static if x is not None]

    def replay(self):
        for kept, x in zip([x for x in self.static if x is not None], self.first, strict=True):
            kept.copy_(x)
        super().replay()


class Refuses(Repeats):
    """As CUDA does."""

    def record(self, step):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")


class Stale(Repeats):
    """Moves what belongs to no optimizer, such as a pool, twice."""

    def replay(self):
        super().replay()
        super().replay()


@pytest.fixture
def graphs(monkeypatch):
    """Steps are captured by the stand-in that is set, on a CPU."""
    monkeypatch.setattr(Repeats, "made", [])
    monkeypatch.setattr(capture, "why_not_here", lambda alignment, optimizers, fabric: None)
    return lambda graph: monkeypatch.setattr(capture, "CudaGraph", graph)


@pytest.fixture(scope="module")
def domains(prepared):
    return prepared / "mr.h5", prepared / "ct.h5"


@pytest.fixture(scope="module")
def as_ever(domains, tmp_path_factory):
    folder = tmp_path_factory.mktemp("as_ever") / "run"
    train(settings(domains, SMALL, snapshots=2), folder, REGISTRY, "cpu")
    return folder


def trained(domains, folder, stepped=lambda progress: None, **more):
    said = []
    watcher = TrainWatcher(stepped=stepped, warned=said.append)
    train(settings(domains, SMALL, snapshots=2, **{"capture": True, **more}), folder, REGISTRY, "cpu", watcher=watcher)
    return [sentence for sentence in said if "captured" in sentence]


def alike(one, other, rate=1e-4):
    """Whether two runs have moved as one, but for rounding."""
    ours, theirs = weights(one)["networks"], weights(other)["networks"]
    for name, state in ours.items():
        for key, value in state.items():
            assert torch.allclose(value.float(), theirs[name][key].float(), atol=rate), (name, key)


def test_repeated_steps_are_the_steps_themselves(domains, as_ever, graphs, tmp_path):
    graphs(Repeats)
    assert trained(domains, tmp_path / "run") == []
    # Of ten steps of each stage one and three are taken as ever, and two both ways.
    assert [graph.replays for graph in Repeats.made] == [6, 6]
    alike(tmp_path / "run", as_ever)
    speed = json.loads((tmp_path / "run/speed.json").read_text())
    assert [stage["captured"] for stage in speed.values()] == [True, True]
    logs = [
        [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        for run in (tmp_path / "run", as_ever)
    ]
    for ours, theirs in zip(*logs, strict=True):
        assert ours.keys() == theirs.keys()
        assert list(ours.values())[2:] == pytest.approx(list(theirs.values())[2:], rel=1e-4)
    groups = [g for o in weights(tmp_path / "run")["optimizers"].values() for g in o["param_groups"]]
    assert all(isinstance(group["lr"], float) for group in groups)


def test_a_run_goes_on_with_and_without_capture(domains, as_ever, graphs, tmp_path):
    graphs(Repeats)

    def kill(progress):
        if progress.step == 9:
            raise Killed

    with pytest.raises(Killed):
        trained(domains, tmp_path / "run", kill, capture=True)
    trained(domains, tmp_path / "run", capture=False)
    alike(tmp_path / "run", as_ever)
    with pytest.raises(Killed):
        trained(domains, tmp_path / "other", kill, capture=False)
    trained(domains, tmp_path / "other", capture=True)
    alike(tmp_path / "other", as_ever)


@pytest.mark.parametrize(
    "graph, words", [(FreezesChance, "repeated, a step "), (FreezesTheBatch, "repeated, a step has L_")]
)
def test_a_graph_that_repeats_something_else_is_found_before_it_counts(
    domains, as_ever, graphs, tmp_path, graph, words
):
    graphs(graph)
    said = trained(domains, tmp_path / "run")
    assert said and all("steps of stage" in s and "not captured" in s for s in said) and words in said[0]
    alike(tmp_path / "run", as_ever)


def test_what_moves_otherwise_is_found_though_no_loss_says_so(domains, as_ever, graphs, tmp_path):
    graphs(Stale)
    said = trained(domains, tmp_path / "run")
    assert len(said) == 2 and all("a step " in sentence for sentence in said)
    alike(tmp_path / "run", as_ever)


def test_what_cuda_refuses_is_trained_as_ever_and_said_once(domains, as_ever, graphs, tmp_path):
    graphs(Refuses)
    said = trained(domains, tmp_path / "run")
    assert [s.partition("operation")[2] for s in said] == [" not permitted when stream is capturing"] * 2
    assert [graph.forgotten for graph in Repeats.made] == [True, True]
    alike(tmp_path / "run", as_ever)


def test_a_step_that_is_not_steady_is_never_recorded_and_its_line_is_named(domains, graphs, tmp_path, monkeypatch):
    graphs(Repeats)
    attent = REGISTRY.alignment("attent")
    segment = attent.segment

    def reads(self, batch, update):
        losses = segment(self, batch, update)
        return losses if losses["L_seg"] > -1 else {}

    monkeypatch.setattr(attent, "segment", reads)
    (said,) = trained(domains, tmp_path / "run")
    assert "stage 'segment'" in said and "test_capture.py:" in said and "reads a value back" in said
    assert [graph.replays for graph in Repeats.made] == [6, 0]


def test_without_a_gpu_it_is_said_and_nothing_changes(domains, as_ever, tmp_path):
    said = trained(domains, tmp_path / "run")
    assert len(said) == 2 and all("CUDA device" in sentence for sentence in said)
    assert (tmp_path / "run/segmentor.safetensors").read_bytes() == (as_ever / "segmentor.safetensors").read_bytes()


class Bare(torch.nn.Module):
    capturable = True


@pytest.mark.parametrize(
    "optimizer, capturable, precision, device, words",
    [
        (SGD, True, "32-true", "cuda", None),
        (Adam, True, "bf16-mixed", "cuda", None),
        (LBFGS, True, "32-true", "cuda", "LBFGS"),
        (SGD, False, "32-true", "cuda", "capturable = False"),
        (SGD, True, "16-mixed", "cuda", "16-mixed"),
        (SGD, True, "32-true", "cpu", "CUDA device"),
    ],
)
def test_what_speaks_against_it_is_known_before_a_step_is_taken(
    optimizer, capturable, precision, device, words, monkeypatch
):
    alignment = Bare()
    alignment.capturable = capturable

    class Here:
        strategy = None

    Here.device = torch.device(device)
    monkeypatch.setattr(capture, "precision_of", lambda fabric: precision)
    said = capture.why_not_here(alignment, {"S": optimizer([torch.nn.Parameter(torch.ones(1))])}, Here)
    assert said is None if words is None else words in said


@pytest.mark.parametrize("make", [lambda p: SGD(p, lr=0.1, momentum=0.9), lambda p: Adam(p, lr=0.1, fused=True)])
def test_rates_as_tensors_step_alike_and_are_written_as_numbers(make):
    def steps(on_device):
        torch.manual_seed(0)
        p = torch.nn.Parameter(torch.randn(5))
        optimizer = make([p])
        for number in range(4):
            if number == 1 and on_device:
                capture.on_the_device([optimizer], p.device)
            rate = 0.1 / (1 + number)
            lr = optimizer.param_groups[0]["lr"]
            if isinstance(lr, torch.Tensor):
                lr.fill_(rate)
            else:
                optimizer.param_groups[0]["lr"] = rate
            p.square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return p, optimizer

    (p, plain), (q, tensors) = steps(False), steps(True)
    assert torch.allclose(p, q, atol=1e-6) and isinstance(tensors.param_groups[0]["lr"], torch.Tensor)
    states = optimizer_states({"S": tensors})
    assert states["S"]["param_groups"][0]["lr"] == pytest.approx(0.025)
    load_optimizer_states({"S": plain}, states)
    assert "capturable" not in plain.param_groups[0] or plain.param_groups[0]["capturable"] is False


def test_a_batch_of_another_shape_is_trained_as_ever():
    taken = []
    method = torch.nn.Linear(2, 1)

    def take(batch):
        taken.append(batch.x_s.shape)
        return {"L": method(batch.x_s).mean().detach()}

    captured = capture.Captured(take, "segment", method, {}, Repeats(torch.device("cpu")))
    for number in range(9):
        x = torch.full((2 if number != 8 else 3, 2), float(number))
        loss = captured(Batch(x, x, x), lambda: None)["L"]
        assert torch.equal(loss, method(x).mean())
    assert captured.repeats and taken[-1] == (3, 2)
