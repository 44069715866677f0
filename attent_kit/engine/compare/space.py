"""[search] of a suite: which options are searched, how, and by what a trial is judged."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from attent_kit.config import ComponentConfig
from attent_kit.errors import ConfigError

SCALES = ("log", "linear")
MOST_TRIALS = 1000


@dataclass(frozen=True)
class Dimension:
    """The values that one option may take: some of them, or all of a range."""

    values: tuple[Any, ...] = ()
    """All of them; of a range with `points`, these; empty of a range without."""
    low: float = 0.0
    high: float = 0.0
    """Ends of a range; equal where there is none."""
    log: bool = False
    whole: bool = False
    """Whether a range is of whole numbers."""

    @property
    def is_range(self) -> bool:
        return self.low < self.high

    @property
    def samples(self) -> list[Any]:
        """Values to be tried for their validity: all, or the ends of a range."""
        return [self.rounded(self.low), self.rounded(self.high)] if self.is_range else [*self.values]

    def rounded(self, value: float) -> Any:
        """A value of the range with four digits, so that what is written is what was run."""
        if self.whole:
            return round(value)
        return min(max(float(f"{value:.4g}"), self.low), self.high)


class Search(ComponentConfig):
    """A search of options for every cell of its own, without target labels."""

    space: dict[str, list[Any]] = Field(min_length=1)
    """Values of each option, named as for `--set`: a list of them, or a range with its scale, `[1e-4, 1e-2, "log"]` or
    `[1, 8, "linear"]`; for `grid` with how many values, `[1e-4, 1e-2, "log", 3]`."""
    sampler: Literal["tpe", "grid"] = "tpe"
    """`tpe`, the tree-structured Parzen estimator of Optuna, or `grid`, every combination."""
    trials: int | None = Field(None, ge=2, le=MOST_TRIALS)
    """How many runs judge options for each cell; of a grid left out, since its combinations are counted."""
    objective: str = "source-dice"
    """Selector whose score of a trial's last snapshot judges it: `source-dice`, Dice on the source's validation images, or
    another that `attentkit list selectors` shows."""
    rows: tuple[str, ...] = ()
    """Labels of the rows that are searched; left out, all that have one of the options and see no target labels."""

    @field_validator("space")
    @classmethod
    def _can_be_read(cls, space: dict[str, list[Any]]) -> dict[str, list[Any]]:
        for name, given in space.items():
            try:
                _dimension(name, given)
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return space

    @model_validator(mode="after")
    def _counts(self) -> "Search":
        if self.sampler == "tpe":
            if self.trials is None:
                raise ValueError("say how many trials each cell has, as in trials = 20.")
            return self
        dimensions = self.dimensions
        if unnumbered := [name for name, d in dimensions.items() if not d.values]:
            low, high, scale = self.space[unnumbered[0]][:3]
            raise ValueError(
                f'a grid needs the number of values in a range: write {unnumbered[0]} = [{low}, {high}, "{scale}", 3].'
            )
        count = prod(len(d.values) for d in dimensions.values())
        if count > MOST_TRIALS:
            raise ValueError(f'the grid has {count} combinations: search fewer values, or by sampler = "tpe".')
        if self.trials is not None and self.trials != count:
            raise ValueError(
                f'the grid has {count} combinations and trials = {self.trials}: leave out trials, or write sampler = "tpe".'
            )
        return self

    @property
    def dimensions(self) -> dict[str, Dimension]:
        """By option."""
        return {name: _dimension(name, given) for name, given in self.space.items()}

    def count(self, dimensions: Mapping[str, Dimension]) -> int:
        """Trials of a cell whose row has these of the options."""
        return self.trials or 0 if self.sampler == "tpe" else prod(len(d.values) for d in dimensions.values())


def ask(
    search: Search,
    dimensions: Mapping[str, Dimension],
    told: Sequence[tuple[Mapping[str, Any], float | None]],
    higher: bool,
    seed: int,
) -> dict[str, Any]:
    """Options of the next trial after those that were `told`, each with its score or None if it has none.

    It follows from its arguments alone. `higher`: whether the higher score is the better. ConfigError without Optuna.
    """
    if search.sampler == "grid":
        return dict(zip(dimensions, [*product(*(d.values for d in dimensions.values()))][len(told)], strict=True))
    optuna = _optuna()
    # Seeds side by side draw alike.
    drawn = int.from_bytes(hashlib.sha256(f"{seed} {len(told)}".encode()).digest()[:4])
    spaces = {name: _distribution(d) for name, d in dimensions.items()}
    sampler = optuna.samplers.TPESampler(seed=drawn, n_startup_trials=min(10, max(2, (search.trials or 2) // 3)))
    study = optuna.create_study(direction="maximize" if higher else "minimize", sampler=sampler)
    for options, value in told:
        raw = {name: options[name] if d.is_range else d.values.index(options[name]) for name, d in dimensions.items()}
        state = optuna.trial.TrialState.FAIL if value is None else optuna.trial.TrialState.COMPLETE
        study.add_trial(optuna.trial.create_trial(params=raw, distributions=spaces, value=value, state=state))
    asked = study.ask(spaces).params
    return {n: d.rounded(asked[n]) if d.is_range else d.values[asked[n]] for n, d in dimensions.items()}


def require_sampler(search: Search) -> None:
    """ConfigError, with what to type, where Optuna is needed and not installed."""
    if search.sampler == "tpe":
        _optuna()


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError(
            'sampler = "tpe" of [search] needs Optuna: type pip install \'attent-kit[search]\', or write sampler = "grid".'
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distribution(d: Dimension) -> Any:
    kinds = _optuna().distributions
    if not d.is_range:
        # By number, since an option may be a list, which Optuna does not take.
        return kinds.CategoricalDistribution(tuple(range(len(d.values))))
    if d.whole:
        return kinds.IntDistribution(int(d.low), int(d.high), log=d.log)
    return kinds.FloatDistribution(d.low, d.high, log=d.log)


def _dimension(name: str, given: Sequence[Any]) -> Dimension:
    scales = [word for word in given if word in SCALES] if len(given) > 2 else []
    if not scales or given[2] not in SCALES:
        if not given:
            raise ConfigError(f'{name} = [] has no value: write some, or a range as in [1e-4, 1e-2, "log"].')
        if twice := [value for n, value in enumerate(given) if value in given[:n]]:
            raise ConfigError(f"{name} names the value {twice[0]} twice: write each once.")
        return Dimension(tuple(given))
    low, high, scale, *points = given
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
    if not numbers or not low < high or len(points) > 1 or (scale == "log" and low <= 0):
        above = ", both above 0" if scale == "log" else ""
        raise ConfigError(
            f'{name} = {[*given]} is not a range: write its lower and its higher end{above}, then "{scale}".'
        )
    whole = isinstance(low, int) and isinstance(high, int)
    d = Dimension((), float(low), float(high), scale == "log", whole)
    if not points:
        return d
    if not isinstance(points[0], int) or points[0] < 2:
        raise ConfigError(f"{name} = {[*given]}: the last number says how many values there are, 2 or more.")
    spaced = np.geomspace if scale == "log" else np.linspace
    values = dict.fromkeys(d.rounded(float(value)) for value in spaced(low, high, points[0]))
    return Dimension(tuple(values), d.low, d.high, d.log, whole)
