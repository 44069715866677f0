"""A run's folder: where everything that a run leaves lies, what its folder is called, and what is known about the run. No torch.

OUT/DIRECTION/ROW/seedN          or seedN-HASH, beside a run of the same seed and of other content; a run alone lies anywhere
OUT/DIRECTION/ROW/seedN-foldKofM the same of fold K of M, where every patient is tested once
OUT/search/DIRECTION/ROW-trial-N/...   runs that tried options for a search
OUT/DIRECTION/ROW/external       label maps of another tool: external.json  predictions/*.nii.gz  scores.csv
    config.toml  domain.json  env.json  log.jsonl  speed.json  cost.json  monitor.json  progress.json  failed.json  trackers.json
    checkpoint.ckpt  snapshots/*.ckpt  selection.csv  grades.csv  dropped.json
    shift.json  translation_audit.csv, .json, .png, .svg
    segmentor.safetensors  predictions/*.nii.gz  scores.csv  slices.npz
    .scores.csv.sha256, and of selection.csv and grades.csv: their digests, compared whenever they are read
    selections/NAME/: the last two lines again, of the snapshot that NAME chooses, and selected.json
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from attent_kit.data.sets.splits import WHOLE, Fold
from attent_kit.errors import ConfigError, DataError, RunError
from attent_kit.files import read_json, while_unchanged
from attent_kit.naming import names_a_file
from attent_kit.report.scores import LAST, Score, read_scores, refuse_gaps

SEARCHED = "search"
"""Folder beside the directions of a comparison, in which the trials of its search lie as runs of a comparison do."""
EXTERNAL_FOLDER = "external"
"""In place of seedN: label maps of another tool, and their scores; nothing is trained there."""
SECONDS_TO_TRY = 0.3
"""Lock retry time: a status check holds the lock briefly."""
_SEEDED = re.compile(r"seed(\d+)(?:-fold(\d+)of(\d+))?(?:-([0-9a-f]{8}))?")


class _Named:
    """A name in the folder `path` of a class."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, place: Any, _: object = None) -> Path:
        path: Path = place.path
        return path / self._name


def in_words(row: str, direction: str, seed: int | None, fold: Fold | str = WHOLE) -> str:
    """A run of a comparison as people read it: "AttENT, mr2ct, seed 0", "AttENT, mr2ct, seed 0, fold 1/5"; without a seed it is
    external."""
    return ", ".join(filter(None, (row, direction, of_seed(seed, fold))))


def of_seed(seed: int | None, fold: Fold | str = WHOLE) -> str:
    """The end of that: "seed 0", "seed 0, fold 1/5", "external"."""
    return EXTERNAL_FOLDER if seed is None else f"seed {seed}" + (f", fold {fold}" if str(fold) else "")


class RunKey(NamedTuple):
    """What tells the runs of a comparison apart; it makes the place of their folders."""

    direction: str
    row: str
    """The row as the name of a folder."""
    seed: int
    fold: Fold = WHOLE

    @property
    def name(self) -> str:
        """DIRECTION/ROW/seedN, or DIRECTION/ROW/seedN-foldKofM."""
        fold = "" if self.fold == WHOLE else f"-fold{self.fold.number}of{self.fold.parts}"
        return f"{self.direction}/{self.row}/seed{self.seed}{fold}"

    def folder(self, out: Path, content: str = "") -> "RunFolder":
        """The run's folder in that of its comparison; `content` is a hash where another run has the plain one."""
        return RunFolder(out / (f"{self.name}-{content}" if content else self.name))


@dataclass(frozen=True)
class Answers:
    """Where a run keeps what it makes from one of its snapshots."""

    path: Path

    segmentor = _Named("segmentor.safetensors")
    """The weights that predict; those of the segmentor load without attent-kit."""
    predictions = _Named("predictions")
    scores = _Named("scores.csv")
    slices = _Named("slices.npz")
    """What figures show of it."""
    selected = _Named("selected.json")
    """What chose the snapshot, if it is not the last."""

    def prediction(self, case: str) -> Path:
        """The label map of a test case."""
        return self.predictions / f"{case}.nii.gz"

    @property
    def selection(self) -> str:
        """What chose the snapshot."""
        folder = RunFolder(self.path.parent.parent)
        return self.path.name if folder.answers(self.path.name) == self and folder.is_run else LAST

    @property
    def done(self) -> bool:
        """Whether its scores are there, whole and readable."""
        return _scored(self.scores) is not None

    def covers(self, cases: Sequence[str], organs: Sequence[str]) -> bool:
        """Whether it is done, and has scores of these organs in all these cases."""
        scored = _scored(self.scores)
        return scored is not None and scored.cases >= {*cases} and (not cases or scored.organs >= {*organs})

    def read(self, cases: Sequence[str] = (), organs: Sequence[str] = ()) -> list[Score]:
        """The scores. DataError, with what to do, if the file is damaged, has gaps, or lacks one of these."""
        scores = read_scores(self.scores)
        refuse_gaps(scores, self.scores, cases, organs)
        return scores


class _Scored(NamedTuple):
    """What scores are of."""

    cases: frozenset[str]
    organs: frozenset[str]


@while_unchanged
def _scored(path: Path) -> _Scored | None:
    """None if there are no scores or not all of them."""
    if not path.exists():
        return None
    try:
        scores = Answers(path.parent).read()
    except DataError:
        return None
    return _Scored(frozenset(score.case for score in scores), frozenset(score.organ for score in scores))


@dataclass(frozen=True)
class RunFolder:
    """One run's folder, whether it is there yet or not."""

    path: Path

    config = _Named("config.toml")
    """All settings; whatever has it is a run."""
    domain = _Named("domain.json")
    """What prediction must know of the target."""
    environment = _Named("env.json")
    """What it was computed with."""
    log = _Named("log.jsonl")
    """Losses."""
    speed = _Named("speed.json")
    cost = _Named("cost.json")
    """What its row costs."""
    monitor = _Named("monitor.json")
    """What was seen while it trained, and whether it collapsed."""
    progress = _Named("progress.json")
    """How far it is, while a process works on it."""
    failed = _Named("failed.json")
    """Why it gave up."""
    trackers = _Named("trackers.json")
    """What trackers know it by."""
    checkpoint = _Named("checkpoint.ckpt")
    """All of its state."""
    snapshots = _Named("snapshots")
    selection = _Named("selection.csv")
    """What selectors say about the snapshots."""
    grades = _Named("grades.csv")
    """What target labels say about them."""
    dropped = _Named("dropped.json")
    """What of it was dropped once it was finished."""
    shift = _Named("shift.json")
    """How far its domains are apart, as `attentkit shift` measured it."""
    audit = _Named("translation_audit.csv")
    """What its translations keep of the anatomy, as `attentkit audit` measured it; pictures beside it differ in the ending."""
    audit_facts = _Named("translation_audit.json")
    """What the audit was made of."""
    selections = _Named("selections")
    """Answers of chosen snapshots, by what chose them."""
    lock = _Named(".lock")
    """Held by the process that works on it."""

    def __str__(self) -> str:
        return str(self.path)

    # What it is called

    @property
    def key(self) -> RunKey | None:
        """None if it does not lie as a run of a comparison does."""
        seeded = _SEEDED.fullmatch(self.path.name)
        row = self.path.parent
        if not seeded:
            return None
        fold = Fold(int(seeded[2]), int(seeded[3])) if seeded[2] else WHOLE
        return RunKey(row.parent.name, row.name, int(seeded[1]), fold)

    @property
    def out(self) -> Path:
        """The folder of its comparison, if it has a key."""
        return self.path.parent.parent.parent

    @property
    def name(self) -> str:
        """DIRECTION/ROW/seedN, with its hash if it has one, as comparison.toml and grid.json name it."""
        return self.path.relative_to(self.out).as_posix()

    @staticmethod
    def named(out: Path, name: object) -> "RunFolder":
        """The run that a file of a comparison calls DIRECTION/ROW/seedN. ValueError for a name that leads elsewhere."""
        parts = str(name).split("/")
        run = RunFolder(out.joinpath(*parts))
        if len(parts) != 3 or not all(map(names_a_file, parts)) or run.key is None:
            raise ValueError(f"'{str(name)[:80]}' names no run")
        return run

    @staticmethod
    def find(out: Path) -> list["RunFolder"]:
        """Every folder that lies below that of a comparison as a run does, in the order of names."""
        return [run for path in sorted(out.glob("*/*/seed*")) if (run := RunFolder(path)).key and path.is_dir()]

    @staticmethod
    def anywhere_below(place: Path) -> list["RunFolder"]:
        """Every run at or below a place, whatever it is called, in the order of names."""
        return [RunFolder(config.parent) for config in sorted(place.rglob(RunFolder(place).config.name))]

    # Its parts

    def snapshot(self, step: int) -> Path:
        """The networks as they were after a step."""
        return self.snapshots / f"step{step:07d}.ckpt"

    def all_snapshots(self) -> list[Path]:
        """The files of all snapshots that are there."""
        return sorted(self.snapshots.glob("*.ckpt"))

    def answers(self, select: str = LAST) -> Answers:
        """Where it keeps its answers with a selection, so that none overwrites another's; those of the last lie in the run."""
        return Answers(self.path if select == LAST else self.selections / select)

    def all_answers(self) -> list[Answers]:
        """Of every selection that has scores, readable or not; those of the last snapshot first."""
        chosen = sorted(place.parent for place in self.selections.glob(f"*/{self.answers().scores.name}"))
        return [*([self.answers()] if self.answers().scores.exists() else []), *map(Answers, chosen)]

    def exported(self) -> list[Answers]:
        """Of every selection whose weights are exported; those of the last snapshot first."""
        chosen = sorted(place.parent for place in self.selections.glob(f"*/{self.answers().segmentor.name}"))
        return [*([self.answers()] if self.answers().segmentor.exists() else []), *map(Answers, chosen)]

    def own_files(self) -> list[Path]:
        """What runs have written into its folder, files and folders, by their names: nothing that somebody else has put there."""
        named = {
            field._name for kind in (Answers, RunFolder) for field in vars(kind).values() if isinstance(field, _Named)
        }
        return [
            path
            for path in sorted(self.path.iterdir())
            if path.name in named
            or path.stem == self.audit.stem
            or re.fullmatch(r"\..+\.(\d+\.part|sha256)", path.name)
        ]

    # How far it is

    @property
    def is_run(self) -> bool:
        """Whether a run was begun in it."""
        return self.config.exists()

    @property
    def has_results(self) -> bool:
        """Whether something was trained in it, so that it belongs to one configuration."""
        left = (self.checkpoint, self.answers().scores, self.answers().segmentor)
        return self.is_run and any(path.exists() for path in left)

    @property
    def has_scores(self) -> bool:
        """Whether it is finished: scored, with whichever of its snapshots."""
        return any(answers.done for answers in self.all_answers())

    @property
    def has_weights(self) -> bool:
        """Whether it has some of its own, so that it needs none to start from."""
        return self.checkpoint.exists() or self.only_predicts

    @property
    def only_predicts(self) -> bool:
        """Whether it is finished, and what only training needs was dropped."""
        return not self.checkpoint.exists() and (read_json(self.dropped) or {}).get("keep") == "prediction"

    def is_held(self, otherwise: bool = False) -> bool:
        """Whether a living process works on it; `otherwise` where the lock may not be tried."""
        return is_held(self.lock, otherwise)

    def read_progress(self) -> dict[str, Any] | None:
        """What the process that works on it, or that died doing so, said last."""
        return read_json(self.progress)

    def read_failure(self) -> dict[str, Any] | None:
        """Why it gave up, if it did."""
        return read_json(self.failed)


def external_named(out: Path, name: object) -> Path:
    """The folder that a file of a comparison calls DIRECTION/ROW/external. ValueError for a name that leads elsewhere."""
    parts = str(name).split("/")
    if len(parts) != 3 or not all(map(names_a_file, parts)) or parts[-1] != EXTERNAL_FOLDER:
        raise ValueError(f"'{str(name)[:80]}' names no label maps of another tool")
    return out.joinpath(*parts)


class Busy(RunError):
    """Another process works on it."""

    def __init__(self, sentence: str, lock: Path) -> None:
        super().__init__(sentence)
        self.lock = lock
        """Held until then."""


@contextmanager
def alone_in(run: RunFolder) -> Iterator[None]:
    """Hold the folder of a run, made if it is new, against other processes; Busy if one of them holds it."""
    if run.path.exists() and not run.path.is_dir():
        raise ConfigError(f"{run} is a file. Name a folder with --out.")
    run.path.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(run.lock, timeout=SECONDS_TO_TRY):
            # What a killed process was writing: nobody else can be writing now.
            for part in run.path.rglob(".*.part"):
                part.unlink()
            yield
    except Timeout:
        sentence = f"another process trains in {run}. Wait for it, or name another folder with --out."
        raise Busy(sentence, run.lock) from None


def is_held(lock: Path, otherwise: bool = False) -> bool:
    """Whether a living process holds a lock: a killed one holds none. `otherwise` where the lock may not be tried."""
    if not lock.exists():
        return False
    try:
        # Not at the first try: somebody else may just be asking the same.
        with FileLock(lock, timeout=0.05, poll_interval=0.01):
            return False
    except Timeout:
        return True
    except OSError:
        return otherwise
