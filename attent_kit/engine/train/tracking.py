"""Forwards a run's events to trackers; a failing tracker never affects the run."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec

from attent_kit.engine.run.folder import Answers, RunFolder
from attent_kit.engine.train.fit import Progress
from attent_kit.errors import ConfigError
from attent_kit.files import read_json, write_text
from attent_kit.registry import Registry
from attent_kit.report.metrics import METRICS
from attent_kit.report.scores import LAST, Score, only_selection, summarise
from attent_kit.tracker import TrackedRun, Tracker

Trackers = Mapping[str, type[Tracker]]


def find_trackers(names: Sequence[str], registry: Registry) -> Trackers:
    """The trackers of these names; ConfigError if one does not exist, or if its package is not installed."""
    found: dict[str, type[Tracker]] = {}
    for name in names:
        component = registry.tracker(name)
        if component.package and find_spec(component.package) is None:
            raise ConfigError(
                f"--track {name} needs the package {component.package}, which is not installed: type "
                f"pip install '{component.install or component.package}', or leave out --track {name}."
            )
        found[name] = component
    return found


class Tracking:
    """The trackers of one run that still work."""

    def __init__(self, trackers: Trackers, run: TrackedRun, warned: Callable[[str], None]) -> None:
        self._classes, self._run, self._warned = trackers, run, warned
        self._files = RunFolder(run.folder)
        self._working: dict[str, Tracker] = {}

    def begin(self, step: int) -> None:
        """Start each, where it stopped if it knows this run."""
        if not self._classes:
            return
        ids = {name: str(known) for name, known in (read_json(self._files.trackers) or {}).items()}

        def start(name: str, tracker: Tracker) -> None:
            ids[name] = str(tracker.start(self._run._replace(step=step, id=ids.get(name))))

        for name, component in self._classes.items():
            try:
                self._working[name] = component()
            except Exception as error:
                self._warn(name, error)
        self._each(start)
        write_text(self._files.trackers, json.dumps(ids, indent=2, sort_keys=True) + "\n")

    def see(self, progress: Progress) -> None:
        """Pass on what is new."""
        values = {f"{progress.stage}/{name}": value for name, value in (progress.losses or {}).items()}
        values |= {f"snapshot/{name}": value for name, value in (progress.scores or {}).items()}
        if values:
            self._each(lambda _, tracker: tracker.log(progress.step, values))

    def end(self, scores: Sequence[Score], answers: Answers) -> None:
        """The run is trained and scored. Trackers get its texts; weights and images of patients stay where they are."""
        means, run = mean_scores(scores), self._files
        named = (run.config, run.environment, run.log, run.monitor, answers.scores, answers.selected)
        files = [path for path in named if path.exists()]
        self._each(lambda _, tracker: tracker.end(means, files))
        self._working.clear()

    def close(self) -> None:
        """End those that have not ended: the run was stopped."""
        self._each(lambda _, tracker: tracker.end(None, ()))
        self._working.clear()

    def _each(self, call: Callable[[str, Tracker], None]) -> None:
        for name, tracker in [*self._working.items()]:
            try:
                call(name, tracker)
            # Whatever a tracker does, such as losing its connection, is not a reason to lose hours of training.
            except Exception as error:
                self._working.pop(name, None)
                self._warn(name, error)

    def _warn(self, name: str, error: Exception) -> None:
        self._warned(f"the tracker '{name}' is switched off, since it failed: {type(error).__name__}: {error}")


def mean_scores(scores: Sequence[Score]) -> dict[str, float]:
    """Mean over the test cases by "METRIC/ORGAN", of the metrics and units that a table shows; without those that have none.

    Of a snapshot other than the last by "SELECTION/METRIC/ORGAN".
    """
    means: dict[str, float] = {}
    chosen = "" if (select := only_selection(scores)) == LAST else f"{select}/"
    for metric in METRICS if scores else ():
        summaries = summarise(scores, metric.name, "cases", metric.unit)
        means |= {f"{chosen}{metric.name}/{s.organ}": s.mean for s in summaries}
    return {name: mean for name, mean in means.items() if not math.isnan(mean)}
