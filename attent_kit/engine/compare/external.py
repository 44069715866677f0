"""Rows of label maps that another tool has made: found, checked, scored like every other row, never trained.

OUT/DIRECTION/ROW/external/
    external.json           where they lay, what the tool has seen, and the SHA-256 of each
    predictions/*.nii.gz    the same with the classes of the task
    scores.csv
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock

from attent_kit.data.prepared.file import Prepared
from attent_kit.data.prepared.folds import all_folds
from attent_kit.data.scans.volumes import Volume, label_image, read_labels, write_labels
from attent_kit.data.sets.labelmap import LabelMap
from attent_kit.data.sets.synonyms import words_of
from attent_kit.data.workers import ReportDone
from attent_kit.engine.apply.inputs import NIFTI, without_ending
from attent_kit.engine.compare.rows import slug
from attent_kit.engine.compare.suite import Suite, domains_of
from attent_kit.engine.run.domains import facts_in
from attent_kit.engine.run.folder import EXTERNAL_FOLDER, Answers, RunFolder
from attent_kit.errors import AttentKitError, ConfigError, DataError, few
from attent_kit.files import read_json, sha256, write_text
from attent_kit.metrics import protocol
from attent_kit.report.scores import EXTERNAL, PROTOCOL, Score, write_scores

FACTS = "external.json"
UNKNOWN = "unknown"
"""What a tool has seen, where nobody says it."""
MOST_NAMED = 3


@dataclass(frozen=True)
class External:
    """One such row in one direction, as a suite asks for it."""

    row: str
    direction: str
    predictions: Path
    """Folder of the label maps."""
    organs: str | None
    """Values of the organs, as `LabelMap.parse` reads them; None for those of the data."""
    seen: str
    """What the tool has been trained on."""
    file: Path
    """The prepared target."""
    folds: bool
    """Whether every labelled case is tested."""
    folder: Path

    @property
    def name(self) -> str:
        """Row and direction in words."""
        return f"{self.row}, {self.direction}, {EXTERNAL}"

    @property
    def answers(self) -> Answers:
        """Where its label maps and scores lie."""
        return Answers(self.folder)

    @cached_property
    def target(self) -> Prepared:
        """Whose test cases are scored."""
        target = facts_in(self.file)
        return all_folds(target) if self.folds else target

    @property
    def tested(self) -> list[str]:
        """The labelled test cases."""
        return [case.id for case in self.target.cases_in("test") if case.has_labels]

    @property
    def done(self) -> bool:
        """Whether these very files are scored against this very truth."""
        if not self.file.exists() or not self.answers.covers(self.tested, self.target.organs):
            return False
        try:
            asked = self._content(self.files())
        except AttentKitError:
            return False
        return (read_json(self.folder / FACTS) or {}).get("content") == asked

    def files(self) -> dict[str, Path]:
        """The label map of each tested case. DataError if the folder or one of them is missing."""
        if not self.predictions.is_dir():
            raise DataError(f"row '{self.row}': {self.predictions} is not a folder: name that of its label maps.")
        images = _image_names(self.target)
        found: dict[str, Path] = {}
        for case in self.tested:
            names = [f"{name}{end}" for name in (case, images.get(case)) if name for end in NIFTI[::-1]]
            there = [path for name in names if (path := self.predictions / name).is_file()]
            if there:
                found[case] = there[0]
        if missing := [case for case in self.tested if case not in found]:
            example = f"{missing[0]}.nii.gz"
            more = f" or {name}.nii.gz" if (name := images.get(missing[0], missing[0])) != missing[0] else ""
            raise DataError(
                f"row '{self.row}': {self.predictions} has no label map of {few(missing, MOST_NAMED)}: "
                f"call each as its case or its image, as in {example}{more}."
            )
        return found

    def read(self, case: str, path: Path) -> np.ndarray:
        """[X, Y, Z] class indices on the grid of the case. DataError for another grid, or a value that means nothing."""
        grid = self.target.grid(case)
        affine = np.array(grid.affine)
        # What it is held against has its shape and its place alone.
        like = Volume(
            np.broadcast_to(np.uint8(0), grid.shape),
            affine,
            label_image(np.zeros((1, 1, 1)), affine).header,
            Path(case),
        )
        by = self.map
        try:
            classes = by.apply(read_labels(path, like=like).array, str(path))
        except DataError as error:
            raise DataError(f"row '{self.row}': {error}") from None
        classes[classes > len(self.target.organs)] = 0
        return classes

    @property
    def map(self) -> LabelMap:
        """Values by the organs of the task, then whatever else the row names. ConfigError if it lacks an organ."""
        organs = self.target.organs
        if self.organs is None:
            return LabelMap.of({organ: n for n, organ in enumerate(organs, start=1)})
        given = LabelMap.parse(self.organs)
        by_words = {words_of(name): values for name, values in given.values}
        if lacking := [organ for organ in organs if not by_words.get(words_of(organ))]:
            raise ConfigError(
                f"row '{self.row}': its organs give no value for {', '.join(lacking)}, which the table scores: write "
                f"{lacking[0]}=N, the value of its label maps."
            )
        own = {words_of(organ) for organ in organs}
        others = tuple((name, values) for name, values in given.values if words_of(name) not in own)
        return LabelMap((*((organ, by_words[words_of(organ)]) for organ in organs), *others), given.others)

    def facts(self, files: dict[str, Path]) -> dict[str, Any]:
        """What external.json says."""
        return {
            "row": self.row,
            "direction": self.direction,
            "seen": self.seen,
            "predictions": str(self.predictions),
            "organs": str(self.map),
            "content": self._content(files),
        }

    def _content(self, files: dict[str, Path]) -> dict[str, Any]:
        """What its scores follow from: the files, their values, and the truth."""
        records = {record["id"]: record for record in self.target.manifest["cases"]}
        truth = [[case, records[case].get("truth"), records[case]["content"]] for case in self.tested]
        digest = hashlib.sha256(json.dumps([self.target.organs, truth]).encode()).hexdigest()
        return {"files": {case: sha256(path) for case, path in files.items()}, "organs": str(self.map), "truth": digest}


def externals_of(suite: Suite, domains: dict[str, Path], out: Path) -> list[External]:
    """Every row with predictions in every direction that it has them for, rows outermost. ConfigError for one folder where there
    are several directions."""
    made = []
    for row in suite.rows:
        given = row.predictions
        if given is None:
            continue
        if isinstance(given, Path) and len(suite.directions) > 1:
            each = ", ".join(f'{direction} = "..."' for direction in suite.directions)
            raise ConfigError(
                f"row '{row.label}': the suite has {len(suite.directions)} directions, and {given} is of one: write "
                f"predictions = {{ {each} }}, or some of these."
            )
        places = {suite.directions[0]: given} if isinstance(given, Path) else given
        for direction in suite.directions:
            if direction in places:
                folder = out / direction / slug(row.label) / EXTERNAL_FOLDER
                target = domains[domains_of(direction, suite.domain_names)[1]]
                made.append(
                    External(
                        row.label, direction, places[direction], row.organs, row.seen or UNKNOWN, target,
                        suite.folds is not None, folder,
                    )
                )  # fmt: skip
    return made


def done_externals(suite: Suite, domains: dict[str, Path], out: Path, directions: Collection[str]) -> list[External]:
    """Those of a suite that are scored, in these directions."""
    return [each for each in externals_of(suite, domains, out) if each.direction in directions and each.done]


def refuse_externals(externals: Sequence[External]) -> None:
    """ConfigError or DataError, before anything is trained, for a row that cannot be scored. Of one whose data are not there yet,
    only its folder is looked at."""
    for each in externals:
        if not each.predictions.is_dir():
            each.files()
        if each.file.exists() and not each.done:
            _ = each.map
            for case, path in each.files().items():
                each.read(case, path)


def score_externals(externals: Sequence[External], report: ReportDone) -> None:
    """Leave label maps, scores and facts of each that is not scored yet. `report` is told the row, how many cases are done, of
    how many."""
    for each in externals:
        each.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(RunFolder(each.folder).lock):
            files = each.files()
            if not each.done:
                _score(each, files, report)
            facts = json.dumps(each.facts(files), indent=2, ensure_ascii=False) + "\n"
            place = each.folder / FACTS
            if not place.exists() or place.read_text(encoding="utf-8") != facts:
                write_text(place, facts)


def _score(each: External, files: dict[str, Path], report: ReportDone) -> None:
    # Scores without the facts that they follow from are of nobody knows what.
    (each.folder / FACTS).unlink(missing_ok=True)
    scores = []
    for done, (case, path) in enumerate(files.items()):
        report(each.row, done, len(files))
        classes = each.read(case, path)
        write_labels(each.answers.prediction(case), classes, np.array(each.target.grid(case).affine))
        truth, spacing = each.target.truth(case)
        annotated = each.target.case(case).annotated
        scores += [
            Score(each.row, each.direction, None, case, *metric, PROTOCOL, EXTERNAL)
            for metric in protocol(PROTOCOL).rows(classes, truth, each.target.organs, spacing, annotated=annotated)
        ]
    write_scores(each.answers.scores, scores)


def scores_of_external(each: External) -> list[Score]:
    """Its score rows under its label. DataError if they are damaged."""
    scores = each.answers.read(each.tested, each.target.organs)
    return [score._replace(alignment=each.row, direction=each.direction) for score in scores]


class ShownExternal(NamedTuple):
    """What lies of such a row in the folder of a comparison."""

    row: str
    direction: str
    seen: str
    predictions: str
    """Where its label maps lay."""
    answers: Answers
    scores: tuple[Score, ...]


def shown_externals(out: Path, names: Sequence[str]) -> list[ShownExternal]:
    """Those of comparison.toml that have scores, in that order. DataError if the scores of one are damaged."""
    made = []
    for name in names:
        folder = out / PurePosixPath(name)
        facts, answers = read_json(folder / FACTS), Answers(folder)
        if facts is None or not answers.scores.exists():
            continue
        row, direction = str(facts.get("row", folder.parent.name)), folder.parent.parent.name
        scores = tuple(score._replace(alignment=row, direction=direction) for score in answers.read())
        seen, place = str(facts.get("seen", UNKNOWN)), str(facts.get("predictions", ""))
        made.append(ShownExternal(row, direction, seen, place, answers, scores))
    return made


def _image_names(target: Prepared) -> dict[str, str]:
    """The name of each case's image without its ending, as `predict` calls its answer; none where several cases share it."""
    names = {
        record["id"]: without_ending(PurePosixPath(str(record["image"]["name"])).name)
        for record in target.manifest["cases"]
    }
    counts = [*names.values()]
    return {case: name for case, name in names.items() if counts.count(name) == 1 and name not in names.keys() - {case}}
