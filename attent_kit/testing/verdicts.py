"""The list of checks, and what they find in a component."""

import inspect
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from attent_kit.errors import AttentKitError
from attent_kit.testing import (
    adaptation,
    alignments,
    general,
    layouts,
    learning,
    networks,
    processes,
    selectors,
    volumes,
    waiting,
    whole_set,
)
from attent_kit.testing.subject import Skipped, Subject

NETWORKS = ("translators", "segmentors", "discriminators")
CONFIGURED = ("alignments", *NETWORKS)


@dataclass(frozen=True)
class Check:
    """One claim about components of some kinds."""

    kinds: tuple[str, ...]
    claim: Callable[[Subject], None]

    @property
    def name(self) -> str:
        """What `-k` matches."""
        return self.claim.__name__.replace("_", "-")

    @property
    def meaning(self) -> str:
        """What a failure means, and how to fix it."""
        return " ".join((inspect.getdoc(self.claim) or "").split())


def _checks(kinds: tuple[str, ...], *claims: Callable[[Subject], None]) -> tuple[Check, ...]:
    return tuple(Check(kinds, claim) for claim in claims)


CHECKS = (
    *_checks((*CONFIGURED, "layouts", "selectors"), general.documented),
    *_checks(CONFIGURED, general.options_written, general.presets_valid),
    *_checks(
        (*CONFIGURED, "layouts", "selectors"),
        general.pickles,
        general.registers_without_torch,
        general.registers_quickly,
    ),
    *_checks(
        ("alignments",),
        alignments.stages_declared,
        alignments.owned_once,
        alignments.finite_losses,
        alignments.trains_move,
        alignments.others_stay,
        alignments.graphs_are_fresh,
        alignments.target_labels_as_declared,
        alignments.partial_labels_as_declared,
        whole_set.labels_the_whole_set,
        alignments.slices_without_organs,
        alignments.predict_answers,
        alignments.predict_repeats,
        alignments.predicts_with_what_it_says,
        alignments.translations_are_images,
        adaptation.adaptation_leaves_no_trace,
        adaptation.adapts_to_one_slice,
        alignments.terms_turn_off,
        alignments.discriminator_losses_are_there,
        alignments.state_is_all,
        alignments.resumes_exactly,
        alignments.bfloat16,
        alignments.odd_sizes,
        alignments.batch_of_one,
        alignments.two_classes,
        alignments.eight_classes,
        alignments.three_channels,
        volumes.volumes_as_declared,
        waiting.waits_for_nobody,
        waiting.capturable_as_declared,
        learning.learns,
        processes.two_processes,
    ),
    *_checks(
        NETWORKS,
        networks.forward_answers,
        networks.gradients,
        networks.eval_repeats,
        networks.state_is_all,
        networks.network_pickles,
        networks.bfloat16,
        networks.odd_sizes,
        networks.batch_of_one,
        networks.forward_waits_for_nobody,
    ),
    *_checks(("translators", "segmentors"), networks.three_channels),
    *_checks(("translators",), networks.encoder_shows),
    *_checks(
        ("segmentors",),
        networks.patch_declared,
        networks.two_classes,
        networks.eight_classes,
        networks.learning_rate_factors,
    ),
    *_checks(("selectors",), selectors.scores_a_look),
    *_checks(("layouts",), layouts.recognises_nothing_in_nothing, layouts.reads_a_data_set),
)
"""Every check, in the order of the run."""


@dataclass(frozen=True)
class Verdict:
    """What one check found in one component."""

    kind: str
    component: str
    check: str
    outcome: Literal["pass", "fail", "skip"]
    found: str
    """What was found, or why it was skipped; empty after a pass."""
    meaning: str
    """What a failure of this check means, and how to fix it."""
    seconds: float


def checks_of(kind: str, words: Sequence[str] = ()) -> list[Check]:
    """The checks of a kind; with `words` those whose name contains one of them."""
    return [c for c in CHECKS if kind in c.kinds and (not words or any(word in c.name for word in words))]


def judge(check: Check, subject: Subject) -> Verdict:
    """Run one check. Whatever the component raises counts as a failure."""
    outcome: Literal["pass", "fail", "skip"] = "pass"
    found, began = "", time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check.claim(subject)
    except Skipped as reason:
        outcome, found = "skip", str(reason)
    except AssertionError as error:
        outcome, found = "fail", (str(error) or "an assertion failed.") + general.source_line(subject, error)
    except AttentKitError as error:
        outcome, found = "fail", str(error)
    except (Exception, SystemExit) as error:
        said = str(error).strip().partition("\n")[0]
        outcome, found = "fail", f"{type(error).__name__}: {said}{general.source_line(subject, error)}"
    seconds = round(time.perf_counter() - began, 2)
    return Verdict(subject.kind, subject.called, check.name, outcome, found, check.meaning, seconds)
