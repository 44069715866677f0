"""Rows without one term each, for any alignment that declares its terms."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from attent_kit.build import configure
from attent_kit.config import dump, merge, validate
from attent_kit.engine.compare.starts import with_starts
from attent_kit.engine.compare.suite import Suite, SuiteRow, options_of
from attent_kit.errors import AttentKitError, ConfigError, did_you_mean
from attent_kit.registry import Registry


class Ablation(NamedTuple):
    """A suite with its rows taken apart."""

    suite: Suite
    full: str
    """Label of the first row that has all its terms."""
    left_out: list[str]
    """Why a row without a term is missing."""


def terms_of(alignment: str, registry: Registry) -> Mapping[str, Mapping[str, Any]]:
    """The terms that an alignment declares; ConfigError if they cannot be read."""
    declared = registry.alignment(alignment).terms
    if not isinstance(declared, Mapping) or not all(
        isinstance(name, str) and name and isinstance(off, Mapping) for name, off in declared.items()
    ):
        raise ConfigError(
            f"the terms of the alignment '{alignment}' are not names with the options that turn them off: tell the author "
            "of its plugin."
        )
    return declared


def _has_terms(alignment: str, registry: Registry) -> bool:
    try:
        return bool(terms_of(alignment, registry))
    except AttentKitError:
        return False


def rows_without(row: SuiteRow, registry: Registry) -> list[SuiteRow]:
    """The row once more for each term of its alignment, without it: "AttENT w/o cycle"."""
    return [
        row.model_copy(update={"label": f"{row.label} w/o {term}", "options": merge(row.options, off)})
        for term, off in terms_of(row.alignment, registry).items()
    ]


def ablate(
    suite: Suite, alignments: Sequence[str], registry: Registry, words: Sequence[str] = (), alone: bool = True
) -> Ablation:
    """Each row of the named alignments followed by those without a term; an alignment that is not a row yet becomes one.

    `alone`: rows of other alignments are dropped. A term that a row's options have turned off already, or cannot turn off,
    is left out, and reported.
    """
    if not alignments:
        raise ConfigError("--ablate: name an alignment, for example one that `attentkit list alignments` shows.")
    for name in alignments:
        if not terms_of(name, registry):
            known = [component.name for component in registry.of("alignments") if _has_terms(component.name, registry)]
            raise ConfigError(
                f"--ablate {name}: the method declares no terms that can be turned off.{did_you_mean(name, known)} These "
                f"do: {', '.join(known) or 'none'}."
            )
    there = {row.alignment for row in suite.rows}
    rows: list[SuiteRow] = []
    full, left_out = None, []
    for row in (*suite.rows, *(SuiteRow(label=name, alignment=name) for name in alignments if name not in there)):
        if row.alignment not in alignments:
            rows += [] if alone else [row]
            continue
        full = full or row.label
        rows.append(row)
        for reduced in rows_without(row, registry):
            reason = reason_against(suite, row, reduced, registry, words)
            if reason is None:
                rows.append(reduced)
            else:
                left_out.append(f"{reduced.label} is left out: {reason}")
    assert full is not None
    data = {**dump(suite), "rows": [dump(row) for row in with_starts(rows, suite.rows, registry)]}
    return Ablation(validate(Suite, data, registry), full, left_out)


def reason_against(
    suite: Suite, row: SuiteRow, reduced: SuiteRow, registry: Registry, words: Sequence[str] = ()
) -> str | None:
    """Why a row without a term is not a row of its own, or None if it is one."""
    component = registry.alignment(row.alignment)
    full = configure(component, options_of(suite, row, registry, words), registry)
    try:
        without = configure(component, options_of(suite, reduced, registry, words), registry)
    except ConfigError as error:
        return f"as '{row.label}' is set, the term cannot be turned off ({error})."
    return f"'{row.label}' has the term off already." if dump(without) == dump(full) else None
