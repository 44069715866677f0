"""How far a run is: progress.json while it trains, `attentkit status` from another terminal, and the grid that is shown."""

import io
import json
import os
import platform
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from attent_kit.cli import live
from attent_kit.config import read_toml
from attent_kit.engine.run import heartbeat as module
from attent_kit.engine.run.folder import RunFolder, alone_in, is_held
from attent_kit.engine.run.heartbeat import Heartbeat, beating, write_failure
from attent_kit.engine.run.settings import run_settings
from attent_kit.engine.run.status import CellState, GridCell, failed_since, state_of
from attent_kit.engine.train.train import TrainWatcher, train
from attent_kit.errors import RunError
from attent_kit.plugins import load
from attent_kit.report.scores import write_scores
from support.waiting import until


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the heartbeat believes in."""
    times = {"now": 100.0}
    monkeypatch.setattr(module.time, "monotonic", lambda: times["now"])
    return times


def read(folder):
    return json.loads((folder / "progress.json").read_text())


def put(folder, **changed):
    """A run's folder with progress.json as a process leaves it."""
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('seed = 0\n[alignment]\nname = "attent"\n')
    (folder / ".lock").touch()
    beat = {
        "stage": "translate", "step": 620, "steps": 1000, "losses": {"L_cyc": 0.25}, "steps_per_second": 9.5,
        "seconds_left": 40.0, "pid": 123, "host": "far", "device": "cuda:1", "updated": module.now(),
    } | changed  # fmt: skip
    (folder / "progress.json").write_text(json.dumps(beat))
    return GridCell("AttENT", "mr2ct", 0, folder)


# The heartbeat


def test_a_heartbeat_says_stage_losses_rate_and_what_is_left_every_two_seconds(tmp_path, clock):
    beat = Heartbeat(RunFolder(tmp_path), "cpu")
    beat("segment", 11, 111, {"L_seg": 0.5})
    first = read(tmp_path)
    assert (first["step"], first["steps_per_second"], first["seconds_left"]) == (11, 0.0, None)
    clock["now"] += 1.0
    beat("segment", 16, 111)
    assert read(tmp_path) == first
    clock["now"] += 1.0
    beat("segment", 21, 111)
    # Ten steps in two seconds, ninety to go.
    found = read(tmp_path)
    updated = datetime.fromisoformat(found.pop("updated"))
    assert abs(datetime.now(UTC) - updated) < timedelta(minutes=1)
    assert found == {
        "stage": "segment", "step": 21, "steps": 111, "losses": {"L_seg": 0.5}, "steps_per_second": 5.0,
        "seconds_left": 18.0, "pid": os.getpid(), "host": platform.node(), "device": "cpu",
    }  # fmt: skip


def test_another_stage_has_a_rate_of_its_own_and_is_said_at_once(tmp_path, clock):
    beat = Heartbeat(RunFolder(tmp_path), "cpu")
    beat("translate", 1, 20, {"L_cyc": 1.0})
    clock["now"] += 0.5
    beat("segment", 11, 20)
    assert (read(tmp_path)["stage"], read(tmp_path)["losses"], read(tmp_path)["steps_per_second"]) == (
        "segment",
        {},
        0.0,
    )
    clock["now"] += 2.0
    beat("segment", 13, 20)
    assert read(tmp_path)["steps_per_second"] == 1.0


def test_a_heartbeat_ends_with_the_run_however_that_ends(tmp_path):
    (tmp_path / "failed.json").write_text("{}")
    with pytest.raises(KeyboardInterrupt), beating(RunFolder(tmp_path), "cpu") as beat:
        beat("segment", 1, 2)
        assert {path.name for path in tmp_path.iterdir()} == {"progress.json"}
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_heartbeat_that_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "file").touch()
    Heartbeat(RunFolder(tmp_path / "file"), "cpu")("segment", 1, 2)


def test_a_run_has_a_heartbeat_while_it_trains_and_none_afterwards(trained, tmp_path):
    folder, seen = tmp_path / "run", []

    def look(progress):
        seen.append({**read(folder), "state": state_of(GridCell("", "", 0, folder)).state})

    registry = load().registry
    settings = run_settings(read_toml(trained / "config.toml"), registry)
    train(settings, folder, registry, "cpu", watcher=TrainWatcher(stepped=look))
    assert {(beat["stage"], beat["steps"], beat["pid"], beat["state"]) for beat in seen} == {
        ("segment", 3, os.getpid(), "running")
    }
    assert not (folder / "progress.json").exists()
    assert state_of(GridCell("", "", 0, folder)).state == "done"


# States


def test_a_state_is_told_from_the_folder_alone(tmp_path):
    place = GridCell("AttENT", "mr2ct", 0, tmp_path / "run")
    assert state_of(place).state == "waiting"
    put(tmp_path / "run")
    assert state_of(place).state == "dead"
    with alone_in(RunFolder(tmp_path / "run")):
        found = state_of(place)
        assert (found.state, found.progress["step"]) == ("running", 620) and found.silent < 60
    (tmp_path / "run/progress.json").unlink()
    with alone_in(RunFolder(tmp_path / "run")):
        assert state_of(place).progress is None and "starting" in live.line(state_of(place))
    (tmp_path / "run/checkpoint.ckpt").touch()
    assert state_of(place).state == "stopped"
    write_failure(RunFolder(tmp_path / "run"), RunError("no more memory"))
    assert (state_of(place).state, state_of(place).error) == ("failed", "no more memory")
    (tmp_path / "run/scores.csv").touch()
    assert state_of(place).state == "failed"  # Cut off, so that it will be made again.
    write_scores(tmp_path / "run/scores.csv", [])
    assert state_of(place).state == "done"


def test_a_failure_counts_for_those_who_began_before_it(tmp_path):
    (tmp_path / "config.toml").touch()
    before = module.now()
    write_failure(RunFolder(tmp_path), ZeroDivisionError("division by zero"))
    assert str(failed_since(RunFolder(tmp_path), before)) == "ZeroDivisionError: division by zero"
    assert failed_since(RunFolder(tmp_path), module.now()) is None
    assert "ZeroDivisionError" in "".join(json.loads((tmp_path / "failed.json").read_text())["traceback"])


def test_nothing_is_written_into_a_folder_that_is_no_run(tmp_path):
    write_failure(RunFolder(tmp_path), RunError("it holds other files"))
    assert list(tmp_path.iterdir()) == []


def test_asking_whether_a_lock_is_held_keeps_nobody_out_and_makes_no_file(tmp_path):
    assert not is_held(tmp_path / ".lock") and list(tmp_path.iterdir()) == []
    with alone_in(RunFolder(tmp_path)):
        assert is_held(tmp_path / ".lock")
    assert not is_held(tmp_path / ".lock")
    with alone_in(RunFolder(tmp_path)):
        pass


# What is shown


def shown(console, table):
    with console.capture() as said:
        console.print(table)
    return said.get()


def test_of_many_seeds_the_grid_has_numbers_and_not_a_column_each(tmp_path):
    states = [
        CellState(row, "mr2ct", seed, tmp_path, "done" if seed < done else "waiting", None, None, None)
        for row, done in (("Pixel", 60), ("AttENT", 7))
        for seed in range(60)
    ]
    console = Console(file=io.StringIO(), width=2000)
    few, many = (shown(console, live.grid(states[:count])) for count in (50, 120))
    assert "seed 49" in few and "waiting" not in few
    lines = [line.replace("│", " ").split() for line in many.splitlines()]
    assert "seed" not in many and ["Pixel", "60", "0"] in lines and ["AttENT", "7", "53"] in lines


@pytest.mark.parametrize(
    ("changed", "held", "line"),
    [
        ({}, True, "translate, step 620 of 1000, 9.5 a second, about 40 s left, on cuda:1 (process 123). L_cyc 0.250"),
        ({"seconds_left": None, "steps_per_second": 0.0, "losses": {}}, True, "step 620 of 1000, on cuda:1 (process 123)."),
        ({"updated": "2020-01-01T00:00:00+00:00"}, True, " h). L_cyc"),
        ({}, False, "dead: process 123 on far ended without a word 0 s ago, at translate, step 620 of 1000"),
        ({"updated": "junk"}, False, "dead: process 123 on far ended without a word"),
        ({"step": "junk"}, True, "running"),
        ({"losses": None}, True, "running"),
    ],
)  # fmt: skip
def test_a_line_says_how_far_a_run_is_or_that_its_process_is_dead(tmp_path, changed, held, line):
    place = put(tmp_path / "run", **changed)
    if not held:
        assert line in live.line(state_of(place))
        return
    with alone_in(RunFolder(tmp_path / "run")):
        said = live.line(state_of(place))
        assert said.startswith("AttENT, mr2ct, seed 0: ") and line in said
        assert ("silent for" in said) == ("updated" in changed)


@pytest.mark.parametrize("content", ["", "junk", "[]", '{"cells": 3}', '{"cells": [{"row": "x"}]}'])
def test_a_spoilt_progress_or_grid_is_no_traceback(attentkit, tmp_path, content):
    place = put(tmp_path / "mr2ct/attent/seed0")
    (place.folder / "progress.json").write_text(content)
    (tmp_path / "grid.json").write_text(content)
    outcome = attentkit("status", tmp_path)
    assert outcome.code == 0 and "attent" in outcome.out


def test_status_shows_the_grid_of_the_last_command_and_whatever_else_runs(attentkit, tmp_path):
    put(tmp_path / "mr2ct/attent/seed0")
    put(tmp_path / "ct2mr/other/seed3")
    cells = [
        {"row": "AttENT [x]", "direction": "mr2ct", "seed": 0, "folder": "mr2ct/attent/seed0"},
        {"row": "W/o", "direction": "mr2ct", "seed": 0, "folder": "mr2ct/w-o/seed0"},
    ]
    (tmp_path / "grid.json").write_text(json.dumps({"cells": cells}))
    with alone_in(RunFolder(tmp_path / "ct2mr/other/seed3")):
        outcome = attentkit("status", tmp_path)
        found = json.loads(attentkit("status", tmp_path, "--json").out)
    assert outcome.code == 0 and "\x1b" not in outcome.out
    assert outcome.out.startswith("0 of 3 runs done, 1 running, 1 dead, 1 waiting\n")
    assert "│ AttENT [x] │ dead" in outcome.out and "62 %" in outcome.out
    assert [(cell["row"], cell["state"]) for cell in found] == [
        ("AttENT [x]", "dead"),
        ("W/o", "waiting"),
        ("attent", "running"),
    ]
    assert found[2]["progress"]["losses"] == {"L_cyc": 0.25} and found[0]["silent"] < 60


def test_status_of_one_run_of_train(attentkit, trained):
    assert attentkit("status", trained).out.startswith("1 of 1 runs done\n")


def test_watching_ends_when_nothing_is_left_to_do(attentkit, trained):
    assert attentkit("status", trained, "--watch").out == "1 of 1 runs done\n"


def test_status_of_a_folder_that_holds_nothing_of_ours(attentkit, tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        outcome = attentkit("status", folder)
        assert outcome.code == 2 and f"{folder} holds no comparison and no run" in outcome.err


def test_a_pipe_gets_a_line_of_what_runs_now_and_then(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(live, "SECONDS_BETWEEN_LINES", 0.01)
    place = put(tmp_path / "run")
    with alone_in(RunFolder(tmp_path / "run")), live.live_grid([place]) as say:
        say("a line [b]of[/b] its own")
        seen = []

        def told():
            seen.append(capsys.readouterr().err)
            return "L_cyc" in seen[-1]

        until(told)
    err = "".join(seen)
    assert "AttENT, mr2ct, seed 0: translate, step 620 of 1000" in err and "\x1b" not in err


def test_numbers_that_are_none_are_null_for_scripts_and_no_word_for_people(attentkit, tmp_path):
    folder = tmp_path / "out" / "mr2ct" / "attent" / "seed0"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('seed = 0\n[alignment]\nname = "attent"\n')
    (folder / "progress.json").write_text('{"stage": "s", "step": 1e400, "steps": NaN, "updated": "2026-01-01"}')
    outcome = attentkit("status", tmp_path / "out")
    assert outcome.code == 0 and "dead" in outcome.out
    (state,) = json.loads(attentkit("status", tmp_path / "out", "--json").out)
    assert state["progress"]["step"] is None and state["progress"]["steps"] is None
