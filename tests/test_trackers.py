"""Trackers as the engine sees them: what they are told, and that nothing of theirs stops a run."""

import json

import pytest

from attent_kit.engine.train import tracking
from attent_kit.engine.train.tracking import find_trackers, mean_scores
from attent_kit.engine.train.train import TrainOptions, TrainWatcher, train
from attent_kit.errors import ConfigError
from attent_kit.registry import Component, Registry
from attent_kit.report.scores import Score
from attent_kit.tracker import TrackedRun, Tracker
from support.commands import train_words
from support.messages import quotes
from support.small_runs import REGISTRY, Killed, equal, settings, weights


@pytest.fixture(scope="module")
def domains(prepared):
    return prepared / "mr.h5", prepared / "ct.h5"


@pytest.fixture
def heard():
    return []


@pytest.fixture
def fake(heard):
    """A tracker class that writes down what it is told, and raises where `fails` says."""

    class Fake(Tracker):
        fails = ""

        def _hear(self, what, *told):
            heard.append((what, *told))
            if self.fails == what:
                raise ConnectionError("nobody there")

        def start(self, run):
            self._hear("start", run)
            return run.id or "seven"

        def log(self, step, values):
            self._hear("log", step, dict(values))

        def end(self, scores, artefacts):
            self._hear("end", scores, [path.name for path in artefacts])

    return Fake


def run(domains, folder, trackers, said=lambda sentence: None, report=lambda p: None, **more):
    given = settings(domains, log_steps=3, snapshots=0)
    options, watcher = TrainOptions(trackers=trackers, **more), TrainWatcher(stepped=report, warned=said)
    return train(given, folder, REGISTRY, "cpu", options, watcher)


def kill_at(step):
    def kill(progress):
        if progress.step == step:
            raise Killed

    return kill


# What they are told


def test_a_tracker_hears_the_config_the_losses_and_the_scores_in_this_order(domains, tmp_path, fake, heard):
    scores = run(domains, tmp_path / "run", {"fake": fake}, row="AttENT", direction="a2b", store=tmp_path)
    assert [what for what, *_ in heard] == ["start", "log", "log", "log", "log", "end"]
    told = heard[0][1]
    assert (told.name, told.folder, told.store) == ("a2b/AttENT/seed5", tmp_path / "run", tmp_path)
    assert (told.step, told.id) == (0, None)
    assert told.config["alignment"]["translate_steps"] == 6 and told.config["seed"] == 5
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [step for _, step, _ in heard[1:-1]] == [3, 6, 9, 12]
    assert {name.partition("/")[0] for _, _, values in heard[1:3] for name in values} == {"translate"}
    last = {f"segment/{name}": value for name, value in lines[-1].items() if name not in ("step", "stage")}
    assert heard[-2][2].keys() == last.keys() == {"segment/L_seg", "segment/L_adv", "segment/L_dis"}
    assert heard[-1][1] == mean_scores(scores)
    assert heard[-1][2] == ["config.toml", "env.json", "log.jsonl", "monitor.json", "scores.csv"]


def test_scores_are_means_over_test_cases_without_those_that_are_not_defined():
    def score(case, organ, metric, value):
        unit = "fraction" if metric == "dice" else "mm"
        return Score("a", "mr2ct", 0, case, organ, metric, value, unit)

    rows = [
        score("1", "liver", "dice", 0.5), score("2", "liver", "dice", 1.0), score("1", "liver", "assd", 2.0),
        score("2", "liver", "assd", float("nan")), score("1", "spleen", "dice", 0.25), score("1", "spleen", "assd", float("nan")),
    ]  # fmt: skip
    assert mean_scores(rows) == {"dice/liver": 0.75, "dice/spleen": 0.25, "dice/average": 0.5, "assd/liver": 2.0}
    assert mean_scores([]) == {}


def test_means_and_files_of_a_chosen_snapshot_are_its_own_and_say_what_chose_it(domains, tmp_path, fake):
    told = []
    listening = type("Listening", (fake,), {"end": lambda self, scores, files: told.append((scores, files))})
    given, folder = settings(domains, snapshots=2), tmp_path / "run"
    for select in ("last", "target-oracle"):
        train(given, folder, REGISTRY, "cpu", TrainOptions(select=select, trackers={"fake": listening}))
    (last, _), (chosen, files) = told
    assert "dice/liver" in last and {f"target-oracle/{name}" for name in last if "dice" in name} <= chosen.keys()
    assert all(name.startswith("target-oracle/") for name in chosen)
    place = folder / "selections" / "target-oracle"
    assert files[-2:] == [place / "scores.csv", place / "selected.json"] and folder / "scores.csv" not in files


def test_scores_of_a_snapshot_are_passed_on(tmp_path, fake, heard):
    from attent_kit.engine.train.fit import Progress

    watcher = tracking.Tracking({"fake": fake}, TrackedRun("name", tmp_path, tmp_path, {}, 0, None), pytest.fail)
    watcher.begin(0)
    watcher.see(Progress("segment", 4, 9, None))
    watcher.see(Progress("segment", 5, 9, {"L_seg": 0.5}, {"entropy": 0.25}))
    assert heard[1:] == [("log", 5, {"segment/L_seg": 0.5, "snapshot/entropy": 0.25})]


# Going on


def test_a_run_that_goes_on_is_the_same_run_to_its_tracker(domains, tmp_path, fake, heard):
    with pytest.raises(Killed):
        run(domains, tmp_path / "run", {"fake": fake}, report=kill_at(8))
    assert heard[-1] == ("end", None, []), "it is told that the run was stopped"
    assert json.loads((tmp_path / "run/trackers.json").read_text()) == {"fake": "seven"}
    heard.clear()
    run(domains, tmp_path / "run", {"fake": fake})
    assert heard[0][1].id == "seven" and heard[0][1].step == 7
    assert [step for what, step, *_ in heard if what == "log"] == [9, 12]
    assert heard[-1][0] == "end" and heard[-1][1] is not None


def test_a_tracker_that_joins_later_leaves_the_ids_of_others_alone(domains, tmp_path, fake):
    with pytest.raises(Killed):
        run(domains, tmp_path / "run", {"fake": fake}, report=kill_at(8))
    run(domains, tmp_path / "run", {"other": fake})
    assert json.loads((tmp_path / "run/trackers.json").read_text()) == {"fake": "seven", "other": "seven"}


def test_a_damaged_list_of_ids_only_starts_the_tracker_anew(domains, tmp_path, fake, heard):
    with pytest.raises(Killed):
        run(domains, tmp_path / "run", {"fake": fake}, report=kill_at(8))
    (tmp_path / "run/trackers.json").write_text("[1")
    heard.clear()
    run(domains, tmp_path / "run", {"fake": fake})
    assert heard[0][1].id is None


# Failing


@pytest.mark.parametrize("fails", ["start", "log", "end"])
def test_a_tracker_that_raises_is_switched_off_with_a_warning_and_the_run_ends_as_ever(
    domains, tmp_path, fake, heard, fails
):
    fake.fails = fails
    others, said = [], []
    other = type("Other", (fake,), {"fails": "", "_hear": lambda self, *told: others.append(told[0])})
    scores = run(domains, tmp_path / "run", {"fake": fake, "other": other}, said.append)
    assert scores and (tmp_path / "run/scores.csv").exists()
    about = [sentence for sentence in said if "fake" in sentence]
    assert len(about) == 1 and quotes(about[0], "'fake' ... off ... ConnectionError: nobody there")
    assert [what for what, *_ in heard].count(fails) == 1 and heard[-1][0] == fails
    assert others == ["start", "log", "log", "log", "log", "end"]


def test_a_tracker_that_cannot_be_made_stops_nothing_either(domains, tmp_path, fake):
    broken = type("Broken", (fake,), {"__init__": lambda self: 1 / 0})
    said = []
    assert run(domains, tmp_path / "run", {"broken": broken}, said.append)
    assert [sentence for sentence in said if "'broken'" in sentence and "ZeroDivisionError" in sentence]


def test_tracking_changes_no_bit_of_the_training(domains, tmp_path, fake):
    run(domains, tmp_path / "tracked", {"fake": fake})
    run(domains, tmp_path / "alone", {})
    assert equal(weights(tmp_path / "tracked"), weights(tmp_path / "alone"))
    assert not (tmp_path / "alone/trackers.json").exists()


# Their packages


def test_a_missing_package_is_a_sentence_with_the_command_before_anything_is_trained(
    attentkit, prepared, tmp_path, monkeypatch
):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    outcome = attentkit(*train_words(prepared, tmp_path / "run", "--track", "tensorboard"))
    assert outcome.code == 2 and not (tmp_path / "run").exists()
    assert quotes(outcome.err, "--track tensorboard ... pip install 'attent-kit[tensorboard]'")


def test_a_comparison_asks_for_the_package_before_anything_is_trained_too(attentkit, suite, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    outcome = attentkit("compare", suite, "-o", tmp_path / "out", "-d", "cpu", "--track", "wandb")
    assert outcome.code == 2 and "pip install 'attent-kit[wandb]'" in outcome.err
    assert not (tmp_path / "out").exists()


def test_an_unknown_tracker_names_the_nearest(attentkit, prepared, tmp_path):
    outcome = attentkit(*train_words(prepared, tmp_path / "run", "--track", "tensorbord"))
    assert outcome.code == 2 and quotes(outcome.err, "tracker ... 'tensorbord' ... 'tensorboard'?")
    assert not (tmp_path / "run").exists()


def test_the_tracker_of_a_plugin_may_need_no_package(fake):
    registry = Registry()
    registry.add(Component("trackers", "mine", fake, "mine", "attentkit-mine", "1"))
    assert find_trackers(["mine"], registry) == {"mine": fake}
    fake.package = "no_such_package_of_ours"
    with pytest.raises(ConfigError, match="pip install 'no_such_package_of_ours'.*--track mine"):
        find_trackers(["mine"], registry)


def test_the_trackers_are_listed_and_shown_with_the_option_that_chooses_them(attentkit):
    listed = json.loads(attentkit("list", "trackers", "--json").out)
    assert {"tensorboard", "wandb", "mlflow"} <= {component["name"] for component in listed}
    assert "chosen with: --track wandb" in attentkit("show", "wandb").out
    assert "chosen with: --layout chaos" in attentkit("show", "chaos").out
