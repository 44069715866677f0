"""A comparison: which methods, on which domains, in which directions, with which seeds.

name = "mine"
directions = ["mr2ct", "ct2mr"]
seeds = [0, 1, 2]
channels = 3                       # if wanted: a slice with its neighbours (2.5-D); a row may have its own
split = "sifa-abdominal"           # if wanted: the test cases that every prepared file must have
folds = 5                          # or: every labelled patient of a target is tested once, by a run that has not seen them

[domains]                          # prepared files by domain name; or [phantom] with a size
mr = "mr.h5"
ct = "ct.h5"

[options]                          # given to every row whose alignment has them
segment_steps = 5000

[[rows]]
label = "W/o adaptation"
alignment = "source_only"

[[rows]]
label = "AttENT"
alignment = "attent"
options = { entropy = "summed" }   # of this row alone

[[rows]]                           # starts from the run of another row, and never reads the source
label = "Source-free"
alignment = "sfda"
start = "W/o adaptation"

[[rows]]                           # label maps of another tool, scored and never trained
label = "TotalSegmentator"
predictions = "ts"                 # a folder, or one for each direction: { mr2ct = "ts" }
organs = "liver=5,right kidney=2,left kidney=3,spleen=1,*=0"
seen = "1204 CT, none of these patients"

[launcher]                         # if wanted: jobs on a cluster, as `--launcher slurm --launch partition=gpu` says, too
name = "slurm"
partition = "gpu"
minutes = 480                      # a row may have its own: resources = { minutes = 900, memory = 32 }

[variants.quick]                   # laid over all of the above by `attentkit compare mine.toml --variant quick`
seeds = [0]
options = { segment_steps = 500 }
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from attent_kit.asked import in_variant
from attent_kit.config import ComponentConfig, dump, merge, parse_set, put, read_toml, validate
from attent_kit.data.phantom import SIZES
from attent_kit.data.sets.splits import Fold, named_split
from attent_kit.engine.compare import starts
from attent_kit.engine.compare.rows import PhantomData, SuiteRow, slug
from attent_kit.engine.compare.space import Search
from attent_kit.engine.run.domains import facts_in, target_seen
from attent_kit.engine.run.folder import Answers, RunFolder, RunKey, in_words
from attent_kit.engine.run.settings import FoldSettings, RunSettings, odd, run_settings
from attent_kit.engine.run.warm_start import with_digest
from attent_kit.errors import AttentKitError, ConfigError, did_you_mean
from attent_kit.interfaces import Alignment
from attent_kit.naming import LONGEST_LINE, LONGEST_TEXT, is_a_line, is_a_text, names_a_file
from attent_kit.registry import Registry
from attent_kit.report.scores import LAST


class Suite(ComponentConfig):
    """A comparison, as its TOML file describes it."""

    name: str
    """Names the folder of the results."""
    title: str = ""
    """Heading of the table."""
    note: str = ""
    """A sentence below the table: what the data are, what the numbers may be used for."""
    attribution: str = ""
    """Whose data these are, as their licence wants it said: printed below the figures and in the report."""
    directions: tuple[str, ...] = Field(min_length=1)
    """Source and target, as in mr2ct."""
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    """A run of every row and direction for each seed."""
    rows: tuple[SuiteRow, ...] = Field(min_length=1)
    """The methods in the order of the table."""
    domains: dict[str, Path] = {}
    """Prepared file of each domain; relative to the suite's file."""
    phantom: PhantomData | None = None
    """The phantom instead of `domains`: domains mr and ct are generated and prepared beside the results."""
    options: dict[str, Any] = {}
    """Options of every alignment that has them."""
    channels: int | None = None
    """Neighbouring slices that the networks see as channels (2.5-D), an odd number; left out, as the files were prepared."""
    split: str | None = None
    """Named split whose test cases every prepared file of `domains` must have; left out, each file's own."""
    settings: dict[str, Any] = {}
    """Settings of every run beside the alignment: precision, augmentation, save_seconds, log_steps, capture, snapshots,
    more_steps, warm_start, whose run is relative to the suite's file."""
    folds: int | None = None
    """Parts into which the patients of a target are dealt, in place of its file's own test cases: a run of every row,
    direction and seed for each, which trains on the others, so that every labelled patient is tested once. 2 are halves."""
    fold_seed: int = Field(0, ge=0)
    """Seed of that dealing."""
    shared_patients: bool = True
    """Whether cases of one name are of one patient in both domains. The source of a fold is then without those whom it tests;
    false where data sets of different people happen to use the same names."""
    launcher: dict[str, Any] = {}
    """How runs are started elsewhere: `name` of a launcher, what it takes, and gpus, cpus, minutes, memory of a run."""
    search: Search | None = None
    """Options that are searched for each row, direction, seed and fold by runs of their own, without target labels."""
    published: Path | None = None
    """TOML file of published numbers, shown beside the results in a block of their own; relative to the suite's file."""

    @field_validator("folds")
    @classmethod
    def _divides(cls, folds: int | None) -> int | None:
        if folds is not None and folds < 2:
            raise ValueError(f"{folds} is not a number of folds: write 2 for two halves, or more.")
        return folds

    @field_validator("channels")
    @classmethod
    def _has_a_middle(cls, channels: int | None) -> int | None:
        return None if channels is None else odd(channels)

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not names_a_file(name):
            raise ValueError(f"{name[:40]!r} cannot name the folder of the results: use letters, digits, '-' and '_'.")
        return name

    @field_validator("title")
    @classmethod
    def _title_can_be_shown(cls, title: str) -> str:
        if title and not is_a_line(title):
            raise ValueError(f"{title[:40]!r} is not a title: write one line of at most {LONGEST_LINE} letters.")
        return title

    @field_validator("note", "attribution")
    @classmethod
    def _text_can_be_shown(cls, text: str) -> str:
        if not is_a_text(text):
            raise ValueError(
                f"{text[:40]!r}... is not a text: write at most {LONGEST_TEXT} letters that can be printed."
            )
        return text

    @field_validator("domains")
    @classmethod
    def _domains_name_folders(cls, domains: dict[str, Path]) -> dict[str, Path]:
        for name in domains:
            if not names_a_file(name):
                raise ValueError(f"{name[:40]!r} cannot name a domain: use letters and digits, as in mr.")
        return domains

    @field_validator("split")
    @classmethod
    def _split_exists(cls, name: str | None) -> str | None:
        try:
            return name if name is None or named_split(name) else None
        except ConfigError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _hangs_together(self) -> "Suite":
        if bool(self.domains) == (self.phantom is not None):
            raise ValueError("name the prepared files of the [domains], or a [phantom] size: one of the two.")
        if self.split is not None and self.phantom is not None:
            raise ValueError(f"the phantom has its own split: leave out split = '{self.split}'.")
        if self.folds is not None and self.phantom is not None:
            patients = min(SIZES[self.phantom.size].patients)
            if self.folds > patients:
                raise ValueError(
                    f"the {self.phantom.size} phantom has {patients} patients: {self.folds} folds are too many."
                )
        if self.folds is not None and self.split is not None:
            raise ValueError(
                f"folds = {self.folds} tests every patient, split = '{self.split}' some of them: leave out one of the two."
            )
        for what, values in (
            ("label", [repr(row.label) for row in self.rows]),
            ("seed", [str(seed) for seed in self.seeds]),
        ):
            for value in values:
                if values.count(value) > 1:
                    raise ValueError(f"the {what} {value} occurs twice; runs are told apart by it.")
        for label, other in combinations([row.label for row in self.rows], 2):
            if slug(label) == slug(other):
                raise ValueError(
                    f"the labels '{label}' and '{other}' would share the folder '{slug(label)}': change one."
                )
        for direction in self.directions:
            domains_of(direction, self.domain_names)
        if not self.trained:
            raise ValueError("no row has an alignment: `attentkit evaluate` scores label maps alone.")
        for row in self.rows:
            for direction in row.predictions if isinstance(row.predictions, dict) else ():
                domains_of(direction, self.domain_names)
        return self

    @property
    def trained(self) -> tuple[SuiteRow, ...]:
        """The rows that have an alignment."""
        return tuple(row for row in self.rows if not row.is_external)

    @property
    def domain_names(self) -> tuple[str, ...]:
        """Names that a direction may be made of."""
        return tuple(self.domains) or ("mr", "ct")


@dataclass(frozen=True)
class Cell:
    """One run of a comparison."""

    row: str
    alignment: str
    direction: str
    seed: int
    settings: RunSettings
    folder: Path
    select: str = LAST
    """What chooses the snapshot that is predicted and scored."""
    trials_left: int | None = None
    """Trials that the search of its options lacks; None where its options are known."""
    start: "Cell | None" = None
    """The run of another row whose weights it starts from, and that is to be done before."""

    @property
    def fold(self) -> Fold:
        """Which part of the target is tested; WHOLE where that is as its file says."""
        return self.settings.data.part

    @property
    def key(self) -> RunKey:
        """What tells its run from others of the comparison."""
        return RunKey(self.direction, slug(self.row), self.seed, self.fold)

    @property
    def starts(self) -> "list[Cell]":
        """The run that it starts from, the one that this starts from, and so on."""
        return [] if self.start is None else [self.start, *self.start.starts]

    @property
    def name(self) -> str:
        """Row, direction, seed and fold in words."""
        return in_words(self.row, self.direction, self.seed, self.fold)

    @property
    def run(self) -> RunFolder:
        """What lies in its folder."""
        return RunFolder(self.folder)

    @property
    def answers(self) -> Answers:
        """Where its predictions and scores lie."""
        return self.run.answers(self.select)

    @property
    def done(self) -> bool:
        """Whether it has all scores that its target asks for; otherwise it is to be run."""
        return self.trials_left is None and self.answers.covers(*self.to_be_scored)

    @property
    def to_be_scored(self) -> tuple[list[str], Sequence[str]]:
        """The labelled test cases of its target, and their organs; none where that does not exist yet."""
        try:
            prepared = target_seen(self.settings.data, facts_in)
        except AttentKitError:
            return [], ()
        return [case.id for case in prepared.cases_in("test") if case.has_labels], prepared.organs


def domains_of(direction: str, names: Sequence[str]) -> tuple[str, str]:
    """Source and target of "mr2ct"."""
    for source in names:
        for target in names:
            if source != target and direction == f"{source}2{target}":
                return source, target
    raise ValueError(
        f"direction '{direction}' is not two of the domains ({', '.join(names)}): write it as in {names[0]}2{names[-1]}."
    )


def read_suite(path: Path, registry: Registry, variant: str | None = None) -> Suite:
    """The suite of a TOML file, its paths made relative to where the command runs.

    A variant is laid over it and adds its own name to the suite's, unless it says another. Without a variant the suite
    is the plain one; a suite whose data are only in its variants cannot run without one.
    """
    data = in_variant(path, read_toml(path), variant)
    suite = validate(Suite, data, registry)
    _refuse_options_of_no_row(suite, registry, suite.options, "options.")
    beside = path.parent
    settings, start = dict(suite.settings), suite.settings.get("warm_start")
    if isinstance(start, Mapping) and "run" in start:
        settings["warm_start"] = {**start, "run": str(beside / str(start["run"]))}
    return suite.model_copy(
        update={
            "settings": settings,
            "rows": tuple(_beside(row, beside, suite.rows) for row in suite.rows),
            "domains": {name: beside / file for name, file in suite.domains.items()},
            "published": None if suite.published is None else beside / suite.published,
        }
    )


def _beside(row: SuiteRow, folder: Path, rows: Sequence[SuiteRow]) -> SuiteRow:
    """The row with its predictions, and a start that is no row, relative to where the command runs."""
    if row.start is not None and row.start not in [other.label for other in rows]:
        row = row.model_copy(update={"start": str(folder / row.start)})
    given = row.predictions
    if given is None:
        return row
    places = {name: folder / place for name, place in given.items()} if isinstance(given, dict) else folder / given
    return row.model_copy(update={"predictions": places})


def narrow(
    suite: Suite,
    registry: Registry,
    alignments: Sequence[str] = (),
    seeds: Sequence[int] = (),
    directions: Sequence[str] = (),
) -> Suite:
    """The suite with other alignments, seeds or directions; an alignment that is not a row yet becomes one under its name."""
    rows = list(suite.rows)
    if alignments:
        rows = []
        for name in alignments:
            registry.find("alignments", name)
            rows += [row for row in suite.rows if row.alignment == name] or [SuiteRow(label=name, alignment=name)]
        rows = starts.with_starts(rows, suite.rows, registry)
    changes = {"rows": rows, "seeds": seeds or suite.seeds, "directions": directions or suite.directions}
    return validate(Suite, {**dump(suite), **{k: _plain(v) for k, v in changes.items()}}, registry)


def joined(suite: Suite, chosen: Suite) -> Suite:
    """The suite with those of the chosen rows that it lacks, each after the row that it follows there."""
    rows, before = list(suite.rows), ""
    for row in chosen.rows:
        labels = [other.label for other in rows]
        if row.label not in labels:
            rows.insert(labels.index(before) + 1 if before in labels else len(rows), row)
        before = row.label
    return suite.model_copy(update={"rows": tuple(rows)})


def expand(
    suite: Suite, registry: Registry, domains: Mapping[str, Path], out: Path, words: Sequence[str] = (),
    select: str = LAST,
) -> list[Cell]:  # fmt: skip
    """Every run of the suite, validated. `words` are `--set` options for every row that has them; `select` is for all."""
    top, over = _set(suite, words)
    _refuse_options_of_no_row(suite, registry, over, "--set ")
    cells = []
    for row in suite.trained:
        alignment = {"name": row.alignment, **options_of(suite, row, registry, words)}
        method = registry.alignment(row.alignment)
        own = starts.settings_of_start(row, suite.rows, registry, top)
        for direction in suite.directions:
            source, target = domains_of(direction, suite.domain_names)
            whence = {"unread": source} if method.source_free else {"source": str(domains[source])}
            channels = suite.channels if row.channels is None else row.channels
            data = {**whence, "target": str(domains[target]), "channels": channels}
            valid: RunSettings | None = None
            for seed in suite.seeds:
                # Of thousands of seeds the first is validated, and each that no run may have.
                if valid is None or seed < 0:
                    try:
                        valid = run_settings({**own, "alignment": alignment, "data": data, "seed": seed}, registry)
                        valid = with_digest(valid)
                    except ConfigError as error:
                        raise ConfigError(f"row '{row.label}': {error}") from None
                for part in _in_folds(valid.model_copy(update={"seed": seed}), suite):
                    run = RunKey(direction, slug(row.label), seed, part.data.part).folder(out)
                    cells.append(Cell(row.label, row.alignment, direction, seed, part, run.path, select))
    return starts.begun(cells, suite.rows, registry, "warm_start" in top)


def _in_folds(settings: RunSettings, suite: Suite) -> list[RunSettings]:
    """The settings once for each fold of the suite, or as they are if it has none."""
    if suite.folds is None:
        return [settings]
    made = []
    for number in range(suite.folds):
        fold = FoldSettings(
            number=number, parts=suite.folds, seed=suite.fold_seed, shared_patients=suite.shared_patients
        )
        made.append(settings.model_copy(update={"data": settings.data.model_copy(update={"fold": fold})}))
    return made


def options_of(suite: Suite, row: SuiteRow, registry: Registry, words: Sequence[str] = ()) -> dict[str, Any]:
    """All options that are given for a row's alignment: the suite's and those of `words` that it has, then its own."""
    component = registry.alignment(row.alignment)
    given = merge(suite.options, _set(suite, words)[1])
    return merge({name: value for name, value in given.items() if _takes(component, name, value)}, row.options)


def _set(suite: Suite, words: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of every run, and options for the rows that have them, as `--set` words leave them."""
    over: dict[str, Any] = {}
    top: dict[str, Any] = dict(suite.settings)
    for name in _OF_THE_SUITE.keys() & top.keys():
        raise ConfigError(f"settings.{name}: {_OF_THE_SUITE[name]}")
    for path, value in parse_set(words):
        if path[0] in _OF_THE_SUITE:
            raise ConfigError(f"--set {path[0]}: {_OF_THE_SUITE[path[0]]}")
        put(top if path[0] in RunSettings.model_fields else over, path, value)
    return top, over


_OF_THE_SUITE = {
    "seed": "a comparison may have several: write seeds = [0, 1], or type --seeds 0,1.",
    "data": "the domains of a comparison belong in its [domains].",
    "alignment": "write the option alone, as in --set segment_steps=100: every row that has it takes it.",
}


def _takes(component: type[Alignment], name: str, value: Any) -> bool:
    """Whether an alignment has an option, or the preset of that name."""
    return value in component.Config.presets if name == "preset" else name in component.Config.model_fields


def _refuse_options_of_no_row(suite: Suite, registry: Registry, options: Mapping[str, Any], where: str) -> None:
    components = [registry.alignment(row.alignment) for row in suite.trained]
    for name, value in options.items():
        if any(_takes(component, name, value) for component in components):
            continue
        if name == "preset":
            presets = dict.fromkeys(preset for component in components for preset in component.Config.presets)
            raise ConfigError(
                f"{where}preset: no row of this suite has a preset '{value}'.{did_you_mean(value, presets)} There are: "
                f"{', '.join(presets) or 'none'}."
            )
        known = dict.fromkeys(option for component in components for option in component.Config.model_fields)
        raise ConfigError(f"{where}{name}: no row of this suite has such an option.{did_you_mean(name, known)}")


def _plain(value: Any) -> Any:
    return [dump(v) if isinstance(v, ComponentConfig) else v for v in value]
