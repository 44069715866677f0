"""Watches a run while it trains, and says at its end whether it has collapsed: monitor.json in the run's folder.

{"collapsed": bool, "warnings": [{"step", "stage", "check", "sentence"}], "looks": [...]}

All of it follows from log.jsonl and from the looks, so that a run that was stopped ends in the same file as one that was not.
A first stage taken over from another run is watched in that run.
"""

import json
from collections.abc import Callable, Sequence

import torch

from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.run.folder import RunFolder
from attent_kit.engine.run.record import NotFinite, Run
from attent_kit.engine.run.stages import parts_of
from attent_kit.engine.train.fit import Progress
from attent_kit.engine.train.glance import class_shares, looks_at
from attent_kit.engine.train.health import COLLAPSED, Alarm, DiscriminatorWatch, Glance, Span, look_alarms, telling
from attent_kit.files import parse_object, read_json, write_text
from attent_kit.interfaces import Alignment


def monitor_of(
    alignment: Alignment,
    run: Run,
    source: Prepared,
    target: Prepared,
    device: torch.device,
    warned: Callable[[str], None],
) -> "Monitor":
    """The monitor of a run that is about to train `alignment`."""
    parts = parts_of(alignment, run.settings.more_steps)
    spans = [Span(part.stage.name, part.first, part.last) for part in parts]
    return Monitor(
        run.folder,
        DiscriminatorWatch(alignment.discriminator_losses(), spans, run.settings.log_steps),
        looks_at(alignment, target, device),
        class_shares(source),
        alignment.task.organs,
        warned,
    )


class Monitor:
    """Whoever trains tells it how far it is; it answers with warnings."""

    def __init__(
        self,
        run: RunFolder,
        watch: DiscriminatorWatch,
        look: Callable[[int, str], Glance],
        expected: Sequence[float],
        organs: Sequence[str],
        warned: Callable[[str], None],
    ) -> None:
        """`expected` is the part of the pixels of each class in the source; `warned` gets each sentence
        once, when it is new."""
        self._run, self._look, self._expected, self._organs, self._warned = run, look, expected, organs, warned
        self._watch, self._end = watch, watch.spans[-1]
        self._looks: list[Glance] = []
        self._from_log: list[Alarm] = []
        self._not_finite: list[Alarm] = []
        self._ended = False
        self._read = 0
        self._said: set[Alarm] = set()

    def begin(self, step: int) -> None:
        """Take up what is known about the first `step` steps; the log ends there."""
        self._looks = [look for look in _looks_in(self._run) if look.step <= step]
        self._ended = bool(self._looks) and self._looks[-1].step == self._end.last
        self._read_log()
        self._said = set(self._alarms())
        if self._run.monitor.exists():
            self._write()

    def see(self, progress: Progress) -> None:
        """Judge fresh losses, and look at predictions where a snapshot was taken."""
        if progress.losses is None and progress.scores is None:
            return
        if progress.losses is not None:
            self._read_log()
        if progress.scores is not None:
            self._take_look(progress.step, progress.stage)
            # Another process may have to go on from here, and knows only what is written.
            self._write()
        self._tell()

    def not_finite(self, error: NotFinite) -> None:
        """The run ends here, and whoever runs it says so."""
        self._not_finite = [Alarm(error.step + 1, error.stage, "not-finite", str(error))]
        self._write()

    def end(self) -> None:
        """Glance once more, after the last stage, unless its last step had a look, and write what all came to."""
        self._read_log()
        if not self._looks or self._looks[-1].step != self._end.last:
            self._take_look(self._end.last, self._end.stage)
        self._ended = True
        self._tell()
        self._write()

    @property
    def collapsed(self) -> bool:
        """Whether the run ended in something that no score should hide."""
        ends = [a for a in self._alarms() if self._ended and a.step == self._looks[-1].step]
        return bool(self._not_finite) or any(alarm.check in COLLAPSED for alarm in ends)

    def _take_look(self, step: int, stage: str) -> None:
        self._looks = [look for look in self._looks if look.step < step] + [self._look(step, stage)]

    def _read_log(self) -> None:
        if not self._run.log.exists():
            return
        with open(self._run.log, "rb") as file:
            file.seek(self._read)
            lines = file.read()
            self._read = file.tell()
        for line in lines.splitlines():
            if (losses := parse_object(line)) is not None:
                self._from_log += self._watch.add(losses)

    def _alarms(self) -> list[Alarm]:
        looks = look_alarms(
            telling(self._looks, self._watch.spans, self._ended), self._expected, self._organs, self._ended
        )
        return sorted([*self._from_log, *looks, *self._not_finite])

    def _tell(self) -> None:
        new = [alarm for alarm in self._alarms() if alarm not in self._said]
        self._said.update(new)
        for alarm in new:
            self._warned(f"step {alarm.step}: {alarm.sentence}")
        if new:
            self._write()

    def _write(self) -> None:
        state = {
            "collapsed": self.collapsed,
            "warnings": [alarm._asdict() for alarm in self._alarms()],
            "looks": [look._asdict() for look in self._looks],
        }
        write_text(self._run.monitor, json.dumps(state, indent=2, ensure_ascii=False) + "\n")


def _looks_in(run: RunFolder) -> list[Glance]:
    """The looks of an earlier process; none if the file is missing or damaged."""
    try:
        looks = (read_json(run.monitor) or {})["looks"]
        return [Glance(**{**look, "shares": tuple(look["shares"])}) for look in looks]
    except (KeyError, TypeError):
        return []
