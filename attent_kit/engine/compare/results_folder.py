"""What lies in the folder of a comparison: what was asked for, and the runs, whether they are finished or not.

comparison.toml         title, note, and the rows, directions and runs that count: asked for, or there and as the suite stands
published.toml          a copy of the published numbers that the suite names
<direction>/<row>/seed<N>/   the runs
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from attent_kit.config import read_toml, to_toml
from attent_kit.engine.compare.suite import Cell, Suite, domains_of, slug
from attent_kit.engine.run.folder import has_results, place_of
from attent_kit.errors import AttentKitError, ConfigError
from attent_kit.files import write_text
from attent_kit.report.published import PublishedTable, read_published
from attent_kit.report.scores import LAST, Score, read_scores, refuse_gaps
from attent_kit.report.table import mark

COMPARISON, PUBLISHED = "comparison.toml", "published.toml"


class Remembered(NamedTuple):
    """What the tables of a folder show, as the last `attentkit compare` on it has left it."""

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


class ShownRun(NamedTuple):
    """One run of the comparison."""

    row: str
    """Its label; with a dagger if target labels have chosen its snapshot, as in its scores."""
    alignment: str
    direction: str
    seed: int
    folder: Path
    place: Path
    """Where predictions and scores of the snapshot lie that counts: `folder`, or below it."""
    scores: tuple[Score, ...]
    """Empty if it is not finished, or no test case has labels."""
    done: bool
    config: dict[str, Any]
    """config.toml as it is written; empty if it is missing."""


def remember(out: Path, suite: Suite, cells: Sequence[Cell], reference: str | None, select: str = LAST) -> None:
    """Write comparison.toml and published.toml. `cells` are those that count: asked for now, or there and as the suite stands.

    What earlier calls, or other processes, have asked for and nobody has begun stays asked for."""
    before = recall(out)
    runs = {_key(cell.folder, out): cell.folder.relative_to(out).as_posix() for cell in cells}
    waiting = {_key(out / run, out): run for run in (before.runs if before else ()) if not has_results(out / run)}
    rows = {row.label: row.alignment for row in suite.rows} | {cell.row: cell.alignment for cell in cells}
    directions = {cell.direction: title_of(cell.direction, suite.domain_names) for cell in cells}
    if before:
        of_rows, of_directions = {row for _, row, _ in waiting}, {direction for direction, _, _ in waiting}
        rows |= {label: name for label, name in before.rows.items() if slug(label) in of_rows - {*map(slug, rows)}}
        directions = {name: title for name, title in before.directions.items() if name in of_directions} | directions
    remembered = {
        "title": suite.title or suite.name,
        "note": suite.note,
        **({"reference": reference} if reference else {}),
        **({"select": select} if select != LAST else {}),
        "runs": sorted({**waiting, **runs}.values()),
        "rows": rows,
        "directions": directions,
    }
    write_text(out / COMPARISON, to_toml(remembered))
    if suite.published:
        read_published(suite.published)  # What makes no sense is met before anything is trained.
        write_text(out / PUBLISHED, suite.published.read_text(encoding="utf-8"))


def recall(out: Path) -> Remembered | None:
    """None if there is no comparison.toml; ConfigError if it is damaged."""
    path = out / COMPARISON
    if not path.exists():
        return None
    data = read_toml(path)
    try:
        return Remembered(
            str(data["title"]),
            str(data["note"]),
            {str(label): str(alignment) for label, alignment in data["rows"].items()},
            {str(direction): str(title) for direction, title in data["directions"].items()},
            data.get("reference"),
            tuple(map(str, data["runs"])),
            str(data.get("select", LAST)),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is not a comparison.toml that `attentkit compare` wrote ({error!r}). Delete it and run that again."
        ) from None


def published_in(out: Path) -> list[PublishedTable]:
    """The published numbers that belong to the comparison."""
    return read_published(out / PUBLISHED) if (out / PUBLISHED).exists() else []


def runs_in(out: Path, remembered: Remembered | None) -> list[ShownRun]:
    """Every run of the folder, rows in the order of comparison.toml, then others by name; seeds in their order.

    ConfigError if there is none. DataError if the scores of one are damaged.
    """
    if not out.is_dir():
        raise ConfigError(f"{out} is no folder: name the --out of an `attentkit compare`, for example runs/phantom.")
    if (out / "config.toml").exists():
        raise ConfigError(f"{out} is a single run: name the folder of the comparison, which holds DIRECTION/ROW/SEED.")
    found = [run for folder in folders_of_runs(out, remembered) if (run := _run(folder, out, remembered)) is not None]
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
        ),
    )


def folders_of_runs(out: Path, remembered: Remembered | None) -> list[Path]:
    """Folders below `out` in which a run was begun, sorted: those of comparison.toml, or without one all that are there."""
    there = sorted({path.parent for name in ("config.toml", "scores.csv") for path in out.glob(f"*/*/seed*/{name}")})
    return [folder for folder in there if remembered is None or folder.relative_to(out).as_posix() in remembered.runs]


def is_shown(folder: Path) -> bool | None:
    """Whether the comparison in whose folder a run lies shows it: False if it shows another of the same row, direction and seed,
    None if it shows none of them, or if there is no comparison."""
    folder = folder.resolve()
    out = folder.parent.parent.parent
    remembered = recall(out)
    shown = {_key(out / run, out): out / run for run in (remembered.runs if remembered else ())}
    found = shown.get(_key(folder, out)) if shown else None
    return None if found is None else found == folder


def title_of(direction: str, names: Sequence[str]) -> str:
    """ "MR to CT" of mr2ct, or the direction itself where it is not two of the names."""
    try:
        source, target = domains_of(direction, names)
    except ValueError:
        return direction
    return f"{source.upper()} to {target.upper()}"


def read_json(path: Path) -> dict[str, Any]:
    """An object that a run has left; empty if it is missing or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _run(folder: Path, out: Path, remembered: Remembered | None) -> ShownRun | None:
    direction, name, seed = _key(folder, out)
    if not seed.isdecimal():
        return None
    select = remembered.select if remembered else LAST
    place = place_of(folder, select)
    path = place / "scores.csv"
    scores = tuple(read_scores(path)) if path.exists() else ()
    refuse_gaps(scores, path)
    try:
        config = read_toml(folder / "config.toml")
    except AttentKitError:
        config = {}
    by_slug = {slug(label): label for label in remembered.rows} if remembered else {}
    row = by_slug.get(name) or (scores[0].alignment if scores else name)
    label = mark(row, select)
    scores = tuple(score._replace(alignment=label) for score in scores)
    return ShownRun(
        label, _alignment(config, row, remembered), direction, int(seed), folder, place, scores, path.exists(), config
    )


def _key(folder: Path, out: Path) -> tuple[str, str, str]:
    """Direction, folder of the row, seed; the hash of a run's content is not in it."""
    direction, name, seeded = folder.relative_to(out).parts
    return direction, name, seeded.removeprefix("seed").partition("-")[0]


def _alignment(config: Mapping[str, Any], row: str, remembered: Remembered | None) -> str:
    table = config.get("alignment")
    name = table.get("name") if isinstance(table, dict) else None
    return str(name or (remembered.rows.get(row, "") if remembered else ""))
