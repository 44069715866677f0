"""What lies in the folder of a comparison: what was asked for, and the runs, whether they are finished or not.

comparison.toml         title, note, and the rows, directions and runs that count: asked for, or there and as the suite stands
published.toml          a copy of the published numbers that the suite names
DIRECTION/ROW/seedN     the runs
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from attent_kit.config import read_toml, to_toml
from attent_kit.data.sets.splits import WHOLE, Fold
from attent_kit.engine.compare.external import External
from attent_kit.engine.compare.suite import Cell, Suite, domains_of, slug
from attent_kit.engine.run.domains import facts_in
from attent_kit.engine.run.folder import Answers, RunFolder, RunKey, external_named, in_words
from attent_kit.errors import AttentKitError, ConfigError
from attent_kit.files import while_unchanged, write_text
from attent_kit.report.published import PublishedTable, read_published
from attent_kit.report.scores import LAST, Score
from attent_kit.report.table import mark

COMPARISON, PUBLISHED = "comparison.toml", "published.toml"


class Remembered(NamedTuple):
    """What the tables of a folder show, as the last `attentkit compare` on it left it."""

    title: str
    note: str
    rows: dict[str, str]
    """Alignment by label, in the order of the table."""
    directions: dict[str, str]
    """"MR to CT" by direction."""
    reference: str | None
    runs: tuple[str, ...]
    """Folders of the runs, as in mr2ct/attent/seed0."""
    select: str = LAST
    """Which snapshot of each run counts."""
    tested: Mapping[str, int] = MappingProxyType({})
    """Cases that all folds of a direction test together; empty without folds."""
    attribution: str = ""
    external: tuple[str, ...] = ()
    """Folders of label maps of other tools, as in mr2ct/totalsegmentator/external."""

    def folders(self, out: Path) -> list[RunFolder]:
        """Those of the runs, begun or not."""
        return [RunFolder(out / run) for run in self.runs]


class ShownRun(NamedTuple):
    """One run of the comparison."""

    row: str
    """Its label; with a dagger if target labels chose its snapshot, as in its scores."""
    alignment: str
    direction: str
    seed: int
    folder: RunFolder
    answers: Answers
    """Predictions and scores of the snapshot that counts."""
    scores: tuple[Score, ...]
    """Empty if it is not finished, or no test case has labels."""
    done: bool
    config: dict[str, Any]
    """Its settings as they are written; empty if they are missing."""

    @property
    def fold(self) -> Fold:
        """Which part of the target it tests."""
        return self.folder.key.fold if self.folder.key else WHOLE

    @property
    def name(self) -> str:
        """Row, direction, seed and fold in words."""
        return in_words(self.row, self.direction, self.seed, self.fold)


def remember(
    out: Path,
    suite: Suite,
    cells: Sequence[Cell],
    reference: str | None,
    select: str = LAST,
    externals: Sequence[External] = (),
) -> None:
    """Write comparison.toml and published.toml. `cells` are those that count: asked for now, or there and as the suite stands; so
    are `externals`.

    Runs requested by earlier calls or other processes but not started stay listed."""
    before = recall(out)
    runs: dict[RunKey | None, str] = {cell.run.key: cell.run.name for cell in cells}
    parts = {cell.direction: cell.fold.parts for cell in cells}
    waiting = {
        run.key: run.name
        for run in (before.folders(out) if before else ())
        # What was asked for with other folds is no longer asked for.
        if run.key and not run.has_results and run.key.fold.parts == parts.get(run.key.direction, run.key.fold.parts)
    }
    for key, name in waiting.items():
        runs.setdefault(key, name)
    rows = {row.label: row.alignment for row in suite.rows} | {cell.row: cell.alignment for cell in cells}
    directions = {cell.direction: title_of(cell.direction, suite.domain_names) for cell in cells}
    tested = cases_tested(cells)
    if before:
        tested = {
            name: count for name, count in before.tested.items() if name in {k.direction for k in waiting}
        } | tested
        of_rows, of_directions = {key.row for key in waiting}, {key.direction for key in waiting}
        rows |= {label: name for label, name in before.rows.items() if slug(label) in of_rows - {*map(slug, rows)}}
        directions = {name: title for name, title in before.directions.items() if name in of_directions} | directions
    remembered = {
        "title": suite.title or suite.name,
        "note": suite.note,
        **({"attribution": suite.attribution} if suite.attribution else {}),
        **({"reference": reference} if reference else {}),
        **({"select": select} if select != LAST else {}),
        **({"tested": tested} if tested else {}),
        "runs": sorted(runs.values()),
        **({"external": [each.folder.relative_to(out).as_posix() for each in externals]} if externals else {}),
        "rows": rows,
        "directions": directions,
    }
    write_text(out / COMPARISON, to_toml(remembered))
    if suite.published:
        read_published(suite.published)  # What makes no sense is met before anything is trained.
        write_text(out / PUBLISHED, suite.published.read_text(encoding="utf-8"))
    else:
        # That of another suite, whose results lay here before.
        (out / PUBLISHED).unlink(missing_ok=True)


def cases_tested(cells: Sequence[Cell]) -> dict[str, int]:
    """How many cases the folds of each direction test together; a direction without folds is not in it."""
    return {
        cell.direction: sum(case.has_labels for case in facts_in(cell.settings.data.target).cases)
        for cell in cells
        if cell.fold != WHOLE
    }


def recall(out: Path) -> Remembered | None:
    """None if there is no comparison.toml; ConfigError if it is damaged."""
    return _remembered(out / COMPARISON)


@while_unchanged
def _remembered(path: Path) -> Remembered | None:
    if not path.exists():
        return None
    data = read_toml(path)
    try:
        found = Remembered(
            str(data["title"]),
            str(data["note"]),
            {str(label): str(alignment) for label, alignment in data["rows"].items()},
            {str(direction): str(title) for direction, title in data["directions"].items()},
            data.get("reference"),
            tuple(map(str, data["runs"])),
            str(data.get("select", LAST)),
            {str(direction): int(count) for direction, count in data.get("tested", {}).items()},
            str(data.get("attribution", "")),
            tuple(map(str, data.get("external", ()))),
        )
        for name in found.external:
            external_named(path.parent, name)
        for run in found.runs:
            RunFolder.named(path.parent, run)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{path} is not a comparison.toml that `attentkit compare` wrote ({error!r}). Delete it and run that again."
        ) from None
    return found


def published_in(out: Path) -> list[PublishedTable]:
    """The published numbers that belong to the comparison."""
    return read_published(out / PUBLISHED) if (out / PUBLISHED).exists() else []


def runs_in(out: Path, remembered: Remembered | None) -> list[ShownRun]:
    """Every run of the folder, rows in the order of comparison.toml, then others by name; seeds in their order.

    ConfigError if there is none. DataError if the scores of one are damaged.
    """
    if not out.is_dir():
        raise ConfigError(f"{out} is not a folder: name the --out of an `attentkit compare`, for example runs/phantom.")
    if RunFolder(out).is_run:
        raise ConfigError(f"{out} is a single run: name the folder of the comparison, which holds DIRECTION/ROW/SEED.")
    labels = {slug(label): label for label in remembered.rows} if remembered else {}
    found = [_shown(run, labels, remembered) for run in begun_in(out, remembered)]
    if not found:
        raise ConfigError(
            f"{out} holds no run: name the --out of an `attentkit compare`, or start one with --out {out}."
        )
    order = {mark(label, remembered.select): n for n, label in enumerate(remembered.rows)} if remembered else {}
    directions = list(remembered.directions) if remembered else []
    return sorted(
        found,
        key=lambda run: (
            directions.index(run.direction) if run.direction in directions else len(directions),
            run.direction,
            order.get(run.row, len(order)),
            run.row,
            run.seed,
            run.fold,
        ),
    )


def begun_in(out: Path, remembered: Remembered | None) -> list[RunFolder]:
    """Runs below `out` that were begun, in the order of names: those of comparison.toml, or without one all that are there."""
    wanted = None if remembered is None else {*remembered.folders(out)}
    there = [run for run in RunFolder.find(out) if wanted is None or run in wanted]
    return [run for run in there if run.is_run or run.answers().scores.exists()]


def is_shown(run: RunFolder) -> bool | None:
    """Whether the comparison in whose folder a run lies shows it: False if it shows another of the same row, direction and seed,
    None if it shows none of them, or if there is no comparison."""
    run = RunFolder(run.path.resolve())
    shown = _shown_in(run.out / COMPARISON).get(run.key) if run.key else None
    return None if shown is None else shown == run


def place_in_table(run: RunFolder) -> int:
    """At which place the comparison in whose folder a run lies shows its row: 0 is the row that the others are tested against.
    The number of all rows if it does not show it."""
    run = RunFolder(run.path.resolve())
    remembered = recall(run.out)
    if remembered is None:
        return 0
    rows = sorted(remembered.rows, key=lambda label: label != remembered.reference)
    names = [slug(label) for label in rows]
    return names.index(run.key.row) if run.key and run.key.row in names else len(names)


@while_unchanged
def _shown_in(path: Path) -> dict[RunKey | None, RunFolder]:
    remembered = _remembered(path)
    return {run.key: run for run in remembered.folders(path.parent)} if remembered else {}


def title_of(direction: str, names: Sequence[str]) -> str:
    """ "MR to CT" of mr2ct, or the direction itself where it is not two of the names."""
    try:
        source, target = domains_of(direction, names)
    except ValueError:
        return direction
    return f"{source.upper()} to {target.upper()}"


def _shown(run: RunFolder, labels: Mapping[str, str], remembered: Remembered | None) -> ShownRun:
    """`labels` of rows by the names of their folders."""
    key = run.key
    assert key is not None
    select = remembered.select if remembered else LAST
    answers = run.answers(select)
    done = answers.scores.exists()
    scores = tuple(answers.read()) if done else ()
    try:
        config = read_toml(run.config)
    except AttentKitError:
        config = {}
    row = labels.get(key.row) or (scores[0].alignment if scores else key.row)
    label = mark(row, select)
    scores = tuple(score._replace(alignment=label) for score in scores)
    alignment = _alignment(config, row, remembered)
    return ShownRun(label, alignment, key.direction, key.seed, run, answers, scores, done, config)


def _alignment(config: Mapping[str, Any], row: str, remembered: Remembered | None) -> str:
    table = config.get("alignment")
    name = table.get("name") if isinstance(table, dict) else None
    return str(name or (remembered.rows.get(row, "") if remembered else ""))
