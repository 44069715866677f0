"""What `--select` chooses: the last snapshot, the one that a selector prefers, or the one that target labels prefer.

`target-oracle` takes the snapshot with the highest Dice on the target's labelled *test* cases, though there may be validation
cases: it is not a way of working but the upper bound of all others, which it can be only on the very cases that the table
scores; and it is what published code did (AttENT's keeps the best epoch on the target's test set). Rows of it are marked.
"""

import json
from collections.abc import Callable

import torch

from attent_kit.asked import refuse_unknown_selection
from attent_kit.data.prepared.file import Prepared
from attent_kit.engine.run.assemble import load_network_states, network_states
from attent_kit.engine.run.folder import Answers, RunFolder
from attent_kit.engine.run.predict import segment_case
from attent_kit.engine.run.settings import RunSettings
from attent_kit.engine.snapshots.snapshots import load_snapshot
from attent_kit.errors import ConfigError, DataError
from attent_kit.files import write_text
from attent_kit.interfaces import Alignment
from attent_kit.metrics.overlap import dice
from attent_kit.registry import Registry
from attent_kit.report.scores import LAST, ORACLE
from attent_kit.report.selection import (
    Grade,
    best_step,
    choose,
    mean_dice,
    read_grades,
    read_selection,
    steps_of,
    write_grades,
)


def refuse_selection(select: str, settings: RunSettings, run: RunFolder, target: Prepared, registry: Registry) -> None:
    """ConfigError or DataError, before anything is trained, if the run will have nothing to choose from."""
    refuse_unknown_selection(select, registry)
    if run.only_predicts and not run.answers(select).segmentor.exists():
        there = ", ".join(answers.selection for answers in run.exported())
        raise ConfigError(
            f"{run} keeps what predicts alone, of --select {there}: choose that, or train into another --out."
        )
    if select == LAST:
        return
    trained = run.has_results and run.answers().scores.exists()
    if not run.selection.exists() and (trained or not settings.snapshots):
        raise ConfigError(
            f"{run} keeps no snapshots that --select {select} could choose from: train into another --out, with --set "
            f"snapshots=5."
        )
    if run.dropped.exists() and not run.answers(select).segmentor.exists():
        steps = steps_of(read_selection(run.selection))
        if not any(run.snapshot(step).exists() for step in steps) and chosen_step(select, run) != max(steps):
            raise ConfigError(
                f"{run} has dropped its snapshots, so that no other can be chosen: train into another --out."
            )
    if select == ORACLE and not any(case.has_labels for case in target.cases_in("test")):
        raise DataError(
            f"--select {ORACLE} needs labelled test cases, and {target.path} has none: leave out --select, or prepare the "
            "target with --labels."
        )


def load_selected(
    select: str, alignment: Alignment, run: RunFolder, target: Prepared, device: torch.device
) -> int | None:
    """Put the networks of the chosen snapshot into an alignment that has those of the end; its step, None for `last`. A method
    that trains nothing has one step to choose from, 0."""
    if select == LAST:
        return None
    if not alignment.stages():
        return 0
    if select == ORACLE:
        grade_snapshots(alignment, run, target, device)
    step = chosen_step(select, run)
    load_snapshot(run, alignment, step, steps_of(read_selection(run.selection)))
    return step


def chosen_step(select: str, run: RunFolder) -> int:
    """The step of the snapshot that a selector chooses, or that target labels prefer once they have graded all.

    ConfigError if they have not, DataError if the selector has scored none.
    """
    if select != ORACLE:
        return choose(read_selection(run.selection), select)
    if not (grades := known_grades(run)):
        raise ConfigError(f"the snapshots of {run} are not graded yet: type `attentkit select {run}` first.")
    return best_step(mean_dice(grades))


def write_selected(answers: Answers, select: str, step: int) -> None:
    """selected.json: what was chosen, and whether by labels of the target."""
    chosen = {"selection": select, "step": step, "label_free": select != ORACLE}
    write_text(answers.selected, json.dumps(chosen, indent=2) + "\n")


def known_grades(run: RunFolder) -> list[Grade]:
    """grades.csv, if it has all snapshots of the run; otherwise nothing."""
    known = read_grades(run.grades)
    return known if {grade.step for grade in known} == {*steps_of(read_selection(run.selection))} else []


def grade_snapshots(
    alignment: Alignment, run: RunFolder, target: Prepared, device: torch.device,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[Grade]:  # fmt: skip
    """Dice of every snapshot on the labelled test cases of the target, kept in grades.csv, so that it is computed once.

    `alignment` has the networks of the end, before and afterwards.
    """
    steps = steps_of(read_selection(run.selection))
    cases = [case.id for case in target.cases_in("test") if case.has_labels]
    if not steps or not cases:
        what = "no snapshots" if not steps else f"no labelled test case of {target.path}"
        raise DataError(f"{run} has {what}, so there is nothing to grade.")
    if known := known_grades(run):
        return known
    states = network_states(alignment)
    end = {name: {key: value.clone() for key, value in state.items()} for name, state in states.items()}
    grades = []
    for done, step in enumerate(steps):
        report(done, len(steps))
        load_network_states(alignment, end)
        load_snapshot(run, alignment, step, steps)
        for case in cases:
            prediction = segment_case(alignment, target, case, device)
            truth, _ = target.truth(case)
            for value, organ in enumerate(target.organs, start=1):
                if organ in target.case(case).annotated:
                    grades.append(Grade(step, case, organ, dice(prediction == value, truth == value)))
    load_network_states(alignment, end)
    write_grades(run.grades, grades)
    return grades
