"""Jobs of a comparison against a launcher that follows a script: nothing is trained, and each fate of a job is acted out."""

import json
from pathlib import Path

import pytest

from attent_kit.engine.compare.suite import expand, read_suite
from attent_kit.engine.compare.watcher import CellWatcher
from attent_kit.engine.jobs import book
from attent_kit.engine.jobs import queue as module
from attent_kit.engine.jobs.book import cancel, log_of, read_book
from attent_kit.engine.jobs.errand import Ear, Errand
from attent_kit.engine.jobs.plan import planned, shapes
from attent_kit.engine.jobs.queue import Queue
from attent_kit.engine.jobs.settings import Launching, launching
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.run.heartbeat import write_failure
from attent_kit.errors import ConfigError, RunError
from attent_kit.launcher import JobState, Launcher
from attent_kit.plugins import load
from attent_kit.report.scores import Score, write_scores

REGISTRY = load().registry
SUITE = """
name = "mine"
directions = ["mr2ct"]
[domains]
mr = "{prepared}/mr.h5"
ct = "{prepared}/ct.h5"
[launcher]
gpus = 0.5
seconds = 0.001
retries = 2
[options]
segmentor = {{ encoder = "tu-test_resnet", encoder_depth = 3, decoder_channels = [16, 8, 8] }}
translator = {{ width = 4, blocks = 1 }}
[[rows]]
label = "W/o"
alignment = "source_only"
resources = {{ minutes = 5 }}
[[rows]]
label = "Pixel"
alignment = "pixel"
[[rows]]
label = "AttENT"
alignment = "attent"
"""


class Stage(Launcher):
    """Acts out what `play` does with a job when it is looked at: `play(job, times)` returns a state, or None for one that is
    not known any more."""

    outlives = True
    play = staticmethod(lambda job, times: None)
    known: dict = {}
    """Jobs that were submitted, by name; they outlive an instance, as those of a cluster do."""
    times: dict = {}
    stopped: list = []

    def submit(self, job):
        assert job.name not in self.known, "it is in the queue already"
        self.known[job.name] = job
        self.times[job.name] = self.times.get(job.name, 0) + 1

    def look(self, names):
        found = []
        for name in [name for name in names if name in self.known]:
            state = self.play(self.known[name], self.times[name])
            if state is None or state.state == "ended":
                del self.known[name]
            found += [state] if state else []
        return found

    def stop(self, names):
        self.stopped.extend(names)


@pytest.fixture
def stage():
    """A stage of its own for each test."""
    return type("OwnStage", (Stage,), {"known": {}, "times": {}, "stopped": []})


class Heard(CellWatcher):
    """Writes down what it is told."""

    def __init__(self):
        self.told, self.sentences = [], []

    def finished(self, cell):
        self.told.append(("finished", cell.row))

    def failed(self, cell, error):
        self.told.append(("failed", cell.row, str(error)))

    def warned(self, cell, sentence):
        self.told.append(("warned", cell.row, sentence))

    def said(self, sentence):
        self.sentences.append(sentence)


@pytest.fixture
def comparison(prepared, tmp_path, stage):
    """A queue of the three rows, and what it tells."""
    file = tmp_path / "mine.toml"
    file.write_text(SUITE.format(prepared=prepared))
    suite = read_suite(file, REGISTRY)
    out = tmp_path / "out"

    def make(**settings):
        asked = launching(suite.launcher, None, [f"{n}={v}" for n, v in settings.items()], REGISTRY)
        how = Launching("stage", stage, stage.Options(), asked.jobs)
        cells = expand(suite, REGISTRY, suite.domains, out)
        jobs = planned(suite, cells, shapes(suite, cells, REGISTRY), how, REGISTRY, out)
        heard = Heard()
        told = {"device": "auto", "trackers": [], "with_parent": False, "copies": {}}
        return Queue(jobs, how, REGISTRY, out, heard, told), jobs, heard

    return make


def errand_of(job):
    return Errand(job.log.with_suffix(".json"))


def say(job, event, sentence=""):
    with errand_of(job).events.open("a") as file:
        file.write(json.dumps([event, 0, sentence]) + "\n")


def succeed(job, out):
    """What the worker of a job leaves that does all of its errand."""
    say(job, "began")
    (cell,) = json.loads(errand_of(job).file.read_text())["cells"]
    if job.name.endswith("-stage"):
        say(job, "staged")
        return JobState(job.name, "ended", "node1", 0)
    folder = out / cell["folder"]
    folder.mkdir(parents=True, exist_ok=True)
    scores = [
        Score(cell["row"], "mr2ct", 0, "ct_3", organ, metric, 0.5, unit, "3d-mm")
        for organ in ("liver", "right kidney", "left kidney", "spleen")
        for metric, unit in (("dice", "fraction"), ("assd", "mm"))
    ]
    write_scores(folder / "scores.csv", scores)
    return JobState(job.name, "ended", "node1", 0)


def row_of(job):
    return json.loads(errand_of(job).file.read_text())["cells"][0]["row"]


def folder_of(job):
    return Path(json.loads(errand_of(job).file.read_text())["cells"][0]["folder"])


# The plan


def test_a_run_is_a_job_and_a_shared_stage_is_one_that_the_runs_come_after(comparison):
    _, jobs, _ = comparison()
    stage, *runs = [p.job for p in jobs]
    assert [p.cell.row for p in jobs][1:] == ["Pixel", "AttENT", "W/o"], "the longest first"
    assert stage.name.endswith("-stage") and jobs[0].until == jobs[0].cell.settings.alignment.options.translate_steps
    assert [job.after for job in runs] == [(stage.name,), (stage.name,), ()]
    assert [job.minutes for job in runs] == [None, None, 5] and {job.gpus for job in runs} == {0.5}
    assert len({job.name for job in [stage, *runs]}) == 4
    assert all("attent_kit.cli.worker" in job.argv and str(errand_of(job).file) in job.argv[-1] for job in runs)


def test_a_job_is_known_by_the_content_of_its_run(comparison, prepared, tmp_path):
    before = {p.cell.row: p.job.name for p in comparison()[1]}
    file = tmp_path / "mine.toml"
    suite = read_suite(file, REGISTRY)
    out = tmp_path / "out"
    cells = expand(suite, REGISTRY, suite.domains, out, ["translate_steps=7"])
    how = launching(suite.launcher, None, [], REGISTRY)
    after = {p.cell.row: p.job.name for p in planned(suite, cells, shapes(suite, cells, REGISTRY), how, REGISTRY, out)}
    assert after["W/o"] == before["W/o"] and after["Pixel"] != before["Pixel"] != before["AttENT"]


# Fates of jobs


def test_all_jobs_go_well(comparison, stage, tmp_path):
    stage.play = staticmethod(lambda job, times: succeed(job, tmp_path))
    queue, jobs, heard = comparison()
    assert queue.run() == []
    assert sorted(heard.told) == [("finished", "AttENT"), ("finished", "Pixel"), ("finished", "W/o")]
    assert stage.times == {p.job.name: 1 for p in jobs}


def test_a_lost_job_is_submitted_again_and_a_failure_of_the_method_is_not(comparison, stage, tmp_path):
    def play(job, times):
        if row_of(job) == "W/o" and times == 1:
            say(job, "began")
            say(job, "warned", "it collapses")
            return JobState(job.name, "ended", "node1", -9, "node fail")
        if row_of(job) == "AttENT":
            say(job, "began")
            (folder_of(job)).mkdir(parents=True, exist_ok=True)
            (folder_of(job) / "config.toml").touch()
            write_failure(RunFolder(folder_of(job)), ZeroDivisionError("division by zero"))
            return JobState(job.name, "ended", "node1", 0)
        return succeed(job, tmp_path)

    stage.play = staticmethod(play)
    queue, jobs, heard = comparison()
    ((cell, error),) = queue.run()
    assert cell.row == "AttENT" and str(error) == "ZeroDivisionError: division by zero"
    times = {p.cell.row: stage.times[p.job.name] for p in jobs}
    assert times["W/o"] == 2 and times["AttENT"] == 1
    assert [told[0] for told in heard.told if told[1] == "AttENT"] == ["failed"]
    assert ("warned", "W/o", "it collapses") in heard.told
    (lost,) = heard.sentences
    assert "W/o, mr2ct, seed 0" in lost and "node1 (node fail)" in lost and "begins anew" in lost


def test_a_run_that_is_lost_again_and_again_is_given_up_unless_it_gets_on(comparison, stage, tmp_path):
    def play(job, times):
        say(job, "began")
        folder_of(job).mkdir(parents=True, exist_ok=True)
        if row_of(job) == "AttENT" and times < 8:
            (folder_of(job) / "checkpoint.ckpt").write_text(str(times))
            return None
        return None if row_of(job) == "W/o" else succeed(job, tmp_path)

    stage.play = staticmethod(play)
    queue, jobs, heard = comparison()
    ((cell, error),) = queue.run()
    goes_on = [said.partition(",")[0] for said in heard.sentences if "goes on from its" in said]
    assert goes_on == ["AttENT"] * 7
    assert cell.row == "W/o" and "lost 3 times without a new checkpoint" in str(error)
    times = {p.cell.row: stage.times[p.job.name] for p in jobs}
    assert times["W/o"] == 3 and times["AttENT"] == 8


def test_where_the_run_fails_that_trains_a_shared_stage_another_one_trains_it(comparison, stage, tmp_path):
    def play(job, times):
        if row_of(job) == "Pixel":
            say(job, "began")
            folder_of(job).mkdir(parents=True, exist_ok=True)
            (folder_of(job) / "config.toml").touch()
            write_failure(RunFolder(folder_of(job)), RuntimeError("a later stage is broken"))
            return JobState(job.name, "ended", "node1", 0)
        return succeed(job, tmp_path)

    stage.play = staticmethod(play)
    queue, jobs, heard = comparison()
    # Two runs that could inherit the stage: one alone trains it in its own job.
    ((cell, _),) = queue.run()
    assert cell.row == "Pixel" and [t for t in heard.told if t[0] == "failed"][0][1] == "Pixel"
    assert {("finished", "AttENT"), ("finished", "W/o")} <= {*heard.told}


def test_a_job_that_its_scheduler_gave_up_with_what_it_comes_after_is_not_counted_as_lost(comparison, stage, tmp_path):
    def play(job, times):
        if job.name.endswith("-stage") and times < 3:
            say(job, "began")
            return JobState(job.name, "ended", "node1", 130)
        # Without a dependency that can be met, Slurm cancels it.
        return JobState(job.name, "ended", "", None, "cancelled") if job.after and times < 4 else succeed(job, tmp_path)

    stage.play = staticmethod(play)
    queue, _, heard = comparison(retries=2)
    assert queue.run() == []
    assert all("(first stage)" in sentence for sentence in heard.sentences)


def test_no_more_jobs_are_in_the_queue_than_it_may_hold(comparison, stage, tmp_path):
    most = []

    def play(job, times):
        most.append(len(stage.known))
        return succeed(job, tmp_path)

    stage.play = staticmethod(play)
    assert comparison(queued=1)[0].run() == [] and max(most) == 1


def test_a_busy_run_is_looked_at_again_and_is_not_counted_as_lost(comparison, stage, tmp_path):
    def play(job, times):
        if row_of(job) == "W/o" and times < 6:
            say(job, "began")
            say(job, "busy")
            return JobState(job.name, "ended", "node1", 75)
        return succeed(job, tmp_path)

    stage.play = staticmethod(play)
    assert comparison()[0].run() == []


# Stopped and started again


def test_a_second_call_attaches_to_the_jobs_of_the_first_and_submits_none_twice(
    comparison, stage, tmp_path, monkeypatch
):
    looked = []

    def play(job, times):
        looked.append(job.name)
        if len(looked) > 8:
            raise KeyboardInterrupt
        say(job, "began")
        return JobState(job.name, "running", "node2")

    stage.play = staticmethod(play)
    queue, jobs, _ = comparison()
    with pytest.raises(KeyboardInterrupt):
        queue.run()
    assert {*stage.times.values()} == {1} and len(stage.known) == 4
    found = read_book(tmp_path / "out")
    assert {job.name for job in found.jobs} == {p.job.name for p in jobs} and found.launcher == "stage"

    def goes_on(job, times):
        looked.append(job.name)
        return succeed(job, tmp_path) if len(looked) > 20 else JobState(job.name, "running")

    stage.play = staticmethod(goes_on)
    queue, _, heard = comparison()
    assert queue.run() == [] and {*stage.times.values()} == {1}
    assert "4 jobs of an earlier call go on." in heard.sentences


def test_what_failed_while_nobody_looked_is_said_once_and_not_tried_again(comparison, stage, tmp_path):
    queue, jobs, _ = comparison()
    failed = next(p for p in jobs if p.cell.row == "W/o")
    failed.cell.folder.mkdir(parents=True)
    (failed.cell.folder / "config.toml").touch()
    write_failure(RunFolder(failed.cell.folder), RunError("no more memory"))
    alive = next(p for p in jobs if p.cell.row == "AttENT")
    alive.errand.write([json.loads(json.dumps({"row": "AttENT", "folder": str(alive.cell.folder)}))], until=None)
    stage.known[alive.job.name], stage.times[alive.job.name] = alive.job, 1
    looks = []

    def play(job, times):
        looks.append(job.name)
        return JobState(job.name, "running") if len(looks) < 3 else succeed(job, tmp_path)

    stage.play = staticmethod(play)
    queue, _, heard = comparison()
    ((cell, error),) = queue.run()
    assert (cell.row, str(error)) == ("W/o", "no more memory") and failed.job.name not in stage.times
    assert [told[0] for told in heard.told if told[1] == "W/o"] == ["failed"]


def test_two_commands_do_not_look_after_one_queue(comparison, stage, tmp_path):
    def play(job, times):
        with pytest.raises(RunError, match="another `attentkit compare`"):
            comparison()[0].run()
        return succeed(job, tmp_path)

    stage.play = staticmethod(play)
    assert comparison()[0].run() == []


def test_cancel_ends_jobs_and_the_command_that_would_submit_them_again(comparison, stage, tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(book, "launching_of", lambda *of: Launching("stage", stage, None, None))

    def play(job, times):
        return JobState(job.name, "running", "node1")

    stage.play = staticmethod(play)
    queue, jobs, heard = comparison()
    monkeypatch.setattr(module.time, "sleep", lambda seconds: stage.stopped or cancel(out, REGISTRY))
    with pytest.raises(KeyboardInterrupt):
        queue.run()
    assert {*stage.stopped} == {p.job.name for p in jobs} and "cancelled" in heard.sentences[-1]


# What cannot be run


@pytest.mark.parametrize(("event", "words"), [("refused", "attent-kit is 9.9 on node7"), (None, "may not see")])
def test_a_node_that_cannot_run_anything_ends_all_in_one_sentence(comparison, stage, event, words):
    def play(job, times):
        if event:
            say(job, event, "attent-kit is 9.9 on node7")
        return JobState(job.name, "ended", "node7", 2)

    stage.play = staticmethod(play)
    queue, _, heard = comparison()
    with pytest.raises(RunError, match=words) as caught:
        queue.run()
    assert event or "exit code 2" in str(caught.value)
    assert sum(stage.times.values()) <= 5 and heard.told == []


def test_a_scheduler_that_does_not_answer_is_asked_again_and_said_once(comparison, stage, tmp_path):
    calls = []

    class Slow(stage):
        def look(self, names):
            calls.append(names)
            if 2 <= len(calls) < 8:
                raise RunError("squeue does not answer.")
            return super().look(names)

    stage.play = staticmethod(lambda job, times: succeed(job, tmp_path))
    queue, _, heard = comparison()
    Slow.play = staticmethod(stage.play)
    queue._launching = queue._launching._replace(kind=Slow)
    assert queue.run() == []
    assert [s for s in heard.sentences if "squeue" in s] == ["squeue does not answer. It is tried again."]


# Files


def test_lines_of_a_worker_are_heard_once_and_only_when_they_are_whole(tmp_path):
    errand = Errand(tmp_path / "a.json")
    ear = Ear(errand)
    assert [*ear.hear()] == []
    errand.events.write_text('["began", 0, ""]\n["warned", 0, "half')
    assert [heard.event for heard in ear.hear()] == ["began"]
    with errand.events.open("a") as file:
        file.write(' way"]\nnot ours\n')
    assert [heard.sentence for heard in ear.hear()] == ["half way"] and [*ear.hear()] == []


def test_a_log_is_named_by_its_run_or_a_part_of_it(comparison, stage, tmp_path):
    stage.play = staticmethod(lambda job, times: succeed(job, tmp_path))
    comparison()[0].run()
    out = tmp_path / "out"
    assert log_of(out, "mr2ct/attent/seed0").name.startswith("mr2ct-attent-seed0-")
    assert log_of(out, "attent") == log_of(out, "mr2ct/attent/seed0") == log_of(out, f"{out}/mr2ct/attent/seed0")
    assert log_of(out, "stage").name.endswith("-stage.log")
    for wrong, words in (
        ("seed0", "3 jobs are called so"),
        ("mr2ct/atent/seed0", "Did you mean 'mr2ct/attent/seed0'?"),
    ):
        with pytest.raises(ConfigError, match=words.replace("?", r"\?")):
            log_of(out, wrong)
    with pytest.raises(ConfigError, match="no jobs of a launcher"):
        log_of(tmp_path, "attent")


def test_logs_of_runs_that_are_done_are_found_when_nothing_is_left_to_do(comparison, stage, tmp_path):
    out = tmp_path / "out"
    stage.play = staticmethod(lambda job, times: succeed(job, out))
    assert comparison()[0].run() == []
    log = log_of(out, "w-o")
    queue, jobs, _ = comparison()
    assert jobs == [] and queue.run() == []
    assert log_of(out, "w-o") == log
