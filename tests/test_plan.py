"""`attentkit compare --plan`: what a comparison would cost, measured, with nothing run and nothing written."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from attent_kit.cli import screen
from attent_kit.data.sets.splits import WHOLE
from attent_kit.engine.compare import price as module
from attent_kit.engine.jobs.errand import Errand
from attent_kit.engine.jobs.plan import Planned
from attent_kit.engine.run.device import launch
from attent_kit.interfaces import Task
from attent_kit.launcher import Job
from support.commands import SUITE
from support.messages import quotes
from support.small_runs import REGISTRY, SMALL, settings


@pytest.fixture
def suite(prepared, tmp_path):
    """AttENT and Pixel, which share a translation stage, W/o adaptation, and no run done."""
    path = tmp_path / "tiny.toml"
    rows = '[[rows]]\nlabel = "Pixel"\nalignment = "pixel"\n'
    path.write_text(SUITE.format(prepared=prepared) + rows, encoding="utf-8")
    return path


def plan(attentkit, suite, out, *more):
    outcome = attentkit("compare", suite, "--plan", "--json", "-d", "cpu", "-o", out, "--seeds", "0", *more)
    return outcome, json.loads(outcome.out) if outcome.out else None


def test_a_plan_measures_every_stage_and_leaves_nothing_behind(attentkit, suite, tmp_path):
    outcome, planned = plan(attentkit, suite, tmp_path / "out")
    assert outcome.code == 0 and not (tmp_path / "out").exists()
    stages = {(s["row"], s["stage"]): s for s in planned["stages"]}
    assert set(stages) == {
        ("W/o adaptation", "segment"), ("AttENT", "translate"), ("AttENT", "segment"),
        ("Pixel", "translate"), ("Pixel", "segment"),
    }  # fmt: skip
    assert all(s["steps"] == 2 and s["seconds_a_step"] > 0 for s in stages.values())


def test_the_disk_that_is_foretold_is_what_weights_take(attentkit, suite, tmp_path):
    """Within 20 %, snapshots and what is shared included."""
    out = tmp_path / "out"
    words = ("-m", "attent,pixel", "--directions", "mr2ct", "--set", "snapshots=3", "--set", "segment_steps=4")
    _, planned = plan(attentkit, suite, out, *words)
    assert attentkit("compare", suite, "-d", "cpu", "-o", out, "--seeds", "0", "--no-report", *words).code == 0
    sizes = {row: sum(map(size_of, (out / "mr2ct" / row / "seed0").rglob("*"))) for row in ("attent", "pixel")}
    shared = sum(map(size_of, (out / "shared").rglob("*")))
    found = {c["row"]: c["disk"] for c in planned["cells"]}
    assert found["AttENT"] == pytest.approx(sizes["attent"] + shared, rel=0.2)
    assert found["Pixel"] == pytest.approx(sizes["pixel"], rel=0.2)
    assert planned["disk"] == sum(found.values()) and shared > 0


def size_of(path):
    """Of a file of weights."""
    return path.stat().st_size if path.suffix in (".ckpt", ".safetensors") else 0


def test_on_a_processor_large_slices_are_measured_small_and_scaled(monkeypatch):
    """Time grows with the pixels, and so does what a step takes of memory beside the weights."""
    taken = []

    class Metered(module._Meter):
        def _stage(self, stage, batch, update, side):
            taken.append(batch.x_t.shape[-1])
            return super()._stage(stage, batch, update, side)

    monkeypatch.setattr(module, "_timed", lambda *_: 0.5)
    monkeypatch.setattr(module, "_peak", lambda device: 300)
    monkeypatch.setattr(module, "_resident", lambda: 200)
    fabric = launch("cpu", "32-true")
    cell = type("ACell", (), {"row": "X", "settings": settings((1, 2), {**SMALL, "segment_batch_size": 1})})
    costs, disk = Metered(cell, REGISTRY, Task(), 256, fabric).measured({}, lambda stage: None)
    assert {cost.side for cost in costs} == {64} == {*taken}
    assert {cost.seconds_a_step for cost in costs} == {8.0} and {cost.memory for cost in costs} == {1800}
    assert disk.left("all") > disk.left("training") > disk.left("prediction") == disk.exported
    cell.settings = cell.settings.model_copy(update={"half_snapshots": True})
    small, halved = Metered(cell, REGISTRY, Task(), 32, fabric).measured({}, lambda stage: None)
    assert 0.4 < halved.snapshots / disk.snapshots < 0.8 and halved.exported == disk.exported
    assert {(cost.side, cost.seconds_a_step, cost.memory) for cost in small} == {(32, 0.5, 300)}


def test_a_shared_stage_is_counted_once_for_each_direction_and_seed(attentkit, suite, tmp_path):
    _, planned = plan(attentkit, suite, tmp_path / "out")
    cells = {(c["row"], c["direction"]): c for c in planned["cells"]}
    assert len(cells) == 3 * 2
    steps = {(s["row"], s["stage"]): s["seconds_a_step"] * s["steps"] for s in planned["stages"]}
    for direction in ("mr2ct", "ct2mr"):
        assert cells["AttENT", direction]["shares"] is None
        assert cells["Pixel", direction]["shares"] == "translate with AttENT"
        assert cells["Pixel", direction]["seconds"] == pytest.approx(steps["Pixel", "segment"])
    assert planned["seconds"] == pytest.approx(sum(c["seconds"] for c in cells.values()))


def test_another_cycle_weight_shares_nothing(attentkit, suite, tmp_path):
    suite.write_text(suite.read_text() + "options = { cycle = 9.0 }\n")
    _, planned = plan(attentkit, suite, tmp_path / "out")
    assert all(c["shares"] is None for c in planned["cells"])


def test_what_is_done_costs_nothing(attentkit, suite, tmp_path):
    out = tmp_path / "out"
    words = ("-m", "source_only", "--directions", "mr2ct")
    assert attentkit("compare", suite, "-d", "cpu", "-o", out, "--seeds", "0", *words).code == 0
    _, planned = plan(attentkit, suite, out, "-m", "source_only")
    costs = {c["direction"]: (c["done"], c["seconds"] == 0) for c in planned["cells"]}
    assert costs == {"mr2ct": (True, True), "ct2mr": (False, False)}


def test_a_row_that_cannot_be_run_is_said_and_the_others_are_priced(attentkit, suite, tmp_path):
    text = suite.read_text().replace(
        "image_discriminator = { width = 4, layers = 1 }", "image_discriminator = { layers = 4 }"
    )
    suite.write_text(text)
    outcome, planned = plan(attentkit, suite, tmp_path / "out", "--directions", "mr2ct")
    errors = {c["row"]: c["error"] for c in planned["cells"]}
    assert errors["W/o adaptation"] is None
    assert quotes(errors["AttENT"], "'patch' ... 48 x 48 ... 32 x 32")


def test_the_plan_is_a_table_for_people(attentkit, suite, tmp_path):
    outcome = attentkit("compare", suite, "--plan", "-d", "cpu", "-o", tmp_path / "out", "--seeds", "0")
    assert outcome.code == 0
    assert "shares translate with AttENT" in outcome.out
    assert "6 runs to train" in outcome.out and " of disk; label maps" in outcome.out
    assert outcome.err.startswith("Reading the suite")


def test_a_plan_of_many_runs_shows_the_seeds_of_a_row_together(monkeypatch, capsys):
    cells = [
        SimpleNamespace(row="W/o", direction="mr2ct", seed=seed, fold=WHOLE, done=False, trials_left=None)
        for seed in (4, 0, 3)
    ]
    costs = [module.CellCost(cell, 60.0, None, None, None, None, 0.0) for cell in cells]
    for most, shown in ((3, ["4", "0", "3"]), (2, ["0, 3 to 4"])):
        monkeypatch.setattr(screen, "MANY_ROWS", most)
        screen.print_price(module.Price([], costs), as_json=False)
        out = capsys.readouterr().out
        assert [line.split("\u2502")[3].strip() for line in out.splitlines() if " W/o " in line] == shown
        assert "3 runs to train, one after another about " in out


def test_of_many_jobs_those_of_a_row_are_shown_together(monkeypatch, capsys):
    def planned(row, seed, until=None, after=()):
        ending = "-stage" if until else ""
        name = f"mr2ct-{row}-seed{seed}{ending}"
        job = Job(f"ak-{name}", (), Path(f"{name}.log"), gpus=1, after=after)
        return Planned(job, SimpleNamespace(row=row, direction="mr2ct"), Errand(Path(f"{name}.json")), until)

    jobs = [planned("pixel", seed, 2) for seed in (0, 1)]
    jobs += [planned("pixel", seed, after=(f"ak-mr2ct-pixel-seed{seed}-stage",)) for seed in (0, 1)]
    grid = SimpleNamespace(launching=SimpleNamespace(name="slurm", jobs=SimpleNamespace(queued=50)))
    for most in (4, 3):
        monkeypatch.setattr(screen, "MANY_ROWS", most)
        screen._print_jobs(grid, jobs)
        shown = capsys.readouterr().out
        assert "4 jobs of slurm, at most 50 in the queue" in shown
        rows = [[cell.strip() for cell in line.split("\u2502")[1:-1]] for line in shown.splitlines() if "pixel" in line]
        if most == 4:
            assert len(rows) == 4 and rows[2][0] == "mr2ct-pixel-seed0" and rows[2][-1] == "mr2ct-pixel-seed0-stage"
    assert rows == [
        ["pixel (first stage)", "mr2ct", "2", "1", "1", "-", "-", ""],
        ["pixel", "mr2ct", "2", "1", "1", "-", "-", "pixel (first stage)"],
    ]


def test_the_peak_of_this_process_is_read_in_mebibytes():
    """A tensor of 200 MiB is within the peak, which is no larger than that of the whole life of the process."""
    resource = pytest.importorskip("resource")
    import torch

    device = torch.device("cpu")
    module._forget_peak(device)
    before = module._peak(device)
    if before is None:
        pytest.skip("this system does not say what a process takes")
    held = torch.ones(200 * 2**18)
    peak, most = module._peak(device), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10
    assert max(before, 200) <= peak <= most + 1 and held.numel()


def test_a_backbone_that_a_row_cannot_take_is_refused_before_anything_is_trained(attentkit, prepared, tmp_path):
    suite = tmp_path / "tiny.toml"
    rows = '[[rows]]\nlabel = "SIFA"\nalignment = "sifa"\noptions = { steps = 2 }\n'
    suite.write_text(SUITE.format(prepared=prepared).replace("segmentor = { ", 'segmentor = { name = "smp", ') + rows)
    outcome = attentkit("compare", suite, "-d", "cpu", "-o", tmp_path / "out")
    assert outcome.code == 2
    assert quotes(outcome.err, "'SIFA': alignment.segmentor: ... low-level head")
    assert not list((tmp_path / "out").rglob("checkpoint.ckpt"))


def costs(*cells):
    """A plan of (seconds, key of its first stage, seconds of that, steps): the owner of a stage comes first."""
    return module.Price([], [module.CellCost(None, s, None, None, None, *more) for s, *more in cells])


@pytest.mark.parametrize(
    ("cells", "one", "two"),
    [
        ([(10, None, 0), (20, None, 0), (30, None, 0)], 60, 40),  # 10 and then 30 beside 20
        ([(10, None, 0, 1), (20, None, 0, 2), (30, None, 0, 3)], 60, 30),  # the longest first
        ([(30, ("t",), 20), (10, ("t",), 0), (5, None, 0)], 45, 30),  # the second waits for the stage, after the third
        ([(30, ("t",), 25), (10, ("t",), 0)], 40, 35),  # it waits until 25
        ([(7, None, 0), (0.0, None, 0), (None, None, 0)], 7, 7),  # done, and not to be run
        ([], 0, 0),
    ],
)  # fmt: skip
def test_the_wall_time_over_two_devices_is_that_of_taking_the_next_free_cell(cells, one, two):
    planned = costs(*cells)
    assert (planned.wall(1), planned.wall(2)) == (one, two)
    assert planned.wall(1) == planned.seconds


def test_a_plan_prices_the_devices_that_are_asked_for(attentkit, suite, tmp_path):
    words = ("compare", suite, "--plan", "-o", tmp_path / "out", "--seeds=0", "--devices=cpu,cpu")
    planned = json.loads(attentkit(*words, "--json").out)
    assert planned["devices"] == ["cpu", "cpu"]
    assert 0.49 * planned["seconds"] < planned["wall_seconds"] < planned["seconds"]
    assert ", over 2 devices about " in attentkit(*words).out and not (tmp_path / "out").exists()


def test_a_plan_of_runs_on_several_devices_says_that_one_was_measured(attentkit, suite, tmp_path, monkeypatch):
    monkeypatch.setattr("attent_kit.engine.run.device.cores", lambda: 4)
    words = ("compare", suite, "--plan", "-o", tmp_path / "out", "--seeds=0", "--directions=mr2ct", "-m", "source_only")
    said = attentkit(*words, "--devices=cpu,cpu,cpu,cpu", "--devices-per-run=2").out
    assert quotes(said, "over 4 devices, 2 for each run, ... measured on one device ... 50%")
    outcome = attentkit(*words, "--device=cpu", "--devices-per-run=3")
    assert outcome.code == 2 and quotes(outcome.out, "which 3 devices cannot ... segment_batch_size=3")
