"""The kit that strangers are checked with: every check can fail, passes where nothing is wrong, and says how to mend it."""

import os

import pytest
import torch

from attent_kit.interfaces import Task
from attent_kit.plugins import load
from attent_kit.testing import CHECKS, Subject, checks_of, judge
from attent_kit.testing.subject import grey_batch, small_options
from attent_kit.testing.waiting import nobody_waits
from support.broken_components import (
    BROKEN,
    CRITIC,
    LAYOUT,
    METHOD,
    REGISTRY,
    SEGMENTOR,
    TRANSLATOR,
    Critic,
    Good,
    Net,
    Plain,
    Tint,
)

COSTLY = ("two-processes",)
"""Made in the complete run alone, but for one good and one broken method."""
COMPLETE = pytest.mark.skipif("ATTENTKIT_COMPLETE" not in os.environ, reason="set ATTENTKIT_COMPLETE=1; ten minutes")
BUILT_IN = [c for c in load().registry if c.plugin == "builtin" and c.kind != "suites"]


def check(name, kind):
    (found,) = [c for c in checks_of(kind) if c.name == name]
    return found


def subject(kind, component, options=None, **more):
    return Subject(kind, component, options or {}, REGISTRY, **more)


# The checks


@pytest.mark.parametrize(
    "name, kind, component, options, words", BROKEN, ids=[f"{b[0]}-{b[2].__name__}" for b in BROKEN]
)
def test_every_check_fails_what_breaks_its_claim_and_says_what_it_found(name, kind, component, options, words, volumes):
    verdict = judge(check(name, kind), subject(kind, component, options, data=volumes / "ct/images"))
    assert verdict.outcome == "fail" and words in verdict.found, verdict


GOOD = [(METHOD, Good), (SEGMENTOR, Net), (TRANSLATOR, Tint), (CRITIC, Critic), (LAYOUT, Plain)]


@pytest.mark.parametrize("kind, component", GOOD)
def test_what_keeps_the_contract_passes_every_check(kind, component, volumes):
    one = subject(kind, component, data=volumes / "ct/images")
    verdicts = [judge(c, one) for c in checks_of(kind)]
    assert [(v.check, v.found) for v in verdicts if v.outcome == "fail"] == []
    assert {v.check for v in verdicts if v.outcome == "skip"} == {"registers-without-torch", "registers-quickly"}


@pytest.mark.parametrize(
    "name, source, words",
    [
        ("registers-without-torch", "import torch\n", "importing stranger_under_test imports torch"),
        ("registers-quickly", "import time\ntime.sleep(0.5)\n", "importing stranger_under_test takes 0."),
        ("registers-quickly", "1 / 0\n", "ZeroDivisionError"),
    ],
)
def test_what_an_installed_plugin_costs_everybody_is_measured(tmp_path, monkeypatch, name, source, words):
    (tmp_path / "stranger_under_test.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    verdict = judge(check(name, METHOD), subject(METHOD, Good, module="stranger_under_test"))
    assert verdict.outcome == "fail" and words in verdict.found
    (tmp_path / "stranger_under_test.py").write_text("HARMLESS = True\n")
    assert judge(check(name, METHOD), subject(METHOD, Good, module="stranger_under_test")).outcome == "pass"


def test_every_check_of_every_kind_has_a_broken_example():
    shown = {(name, kind) for name, kind, *_ in BROKEN}
    claims = {check(name, kind).claim for name, kind in shown}
    registration = {"registers-without-torch", "registers-quickly"}  # above
    assert [c.name for c in CHECKS if c.claim not in claims and c.name not in registration] == []


@pytest.mark.parametrize("one", CHECKS, ids=lambda c: f"{c.kinds[0]}-{c.name}")
def test_every_check_says_what_a_failure_means_and_how_to_mend_it(one):
    sentences = one.meaning.count(". ") + one.meaning.endswith(".")
    assert sentences >= 2 and len(one.meaning) < 330, one.meaning
    assert not any(line.startswith(" ") for line in one.meaning.splitlines())


def test_an_error_of_the_component_is_its_failure_with_the_line_where_it_arose():
    class Falls(Good):
        """Falls."""

        def segment(self, batch, update):
            raise KeyError("no such key")

    verdict = judge(check("finite-losses", METHOD), subject(METHOD, Falls))
    assert verdict.outcome == "fail" and verdict.found.startswith("KeyError: 'no such key' (test_conformance.py:")


# What the checks are made of


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.item(), lambda x: float(x), lambda x: int(x), lambda x: bool(x > 0), lambda x: x.tolist(),
        lambda x: x.cpu(), lambda x: x.to("cpu"), lambda x: x.numpy(), lambda x: x.nonzero(), lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0), lambda x: torch.unique(x), lambda x: x.__setitem__(x > 0, 0.0),
    ],
)  # fmt: skip
def test_reading_a_value_is_noticed_in_every_spelling(read):
    x = torch.ones(())
    with pytest.raises(AssertionError, match="waits for the device"), nobody_waits(torch.device("cpu")):
        read(x)


def test_what_stays_on_the_device_is_not_mistaken_for_waiting():
    x = torch.ones(2, 3)
    with nobody_waits(torch.device("cpu")):
        torch.where(x > 0, x, -x).sum()
        (
            x[0],
            x[:, 1:],
            x[torch.tensor([0])],
            x.to(torch.float64),
            x.shape,
            x.detach(),
            torch.nn.functional.one_hot(torch.tensor([0, 1]), 2),
        )


def test_a_coin_that_the_host_throws_keeps_nobody_waiting_and_one_of_the_device_does():
    x = torch.ones(2)
    with nobody_waits(x.device):
        assert 0 <= float(torch.rand(()) * 2) <= 2
    for coin in (lambda: torch.rand((), device=x.device), lambda: torch.rand_like(x[0]), lambda: torch.ones(()) * x[0]):
        with pytest.raises(AssertionError, match="waits for the device"), nobody_waits(x.device):
            bool(coin() < 0.5)


def test_grey_slices_show_every_class_as_a_grey_value_of_its_own():
    batch = grey_batch(2, Task(organs=("liver", "spleen")), 60, True)
    for x, y in ((batch.x_s, batch.y_s), (batch.x_t, batch.y_t)):
        for k, grey in ((0, -0.8), (1, 0.0), (2, 0.8)):  # three classes from -0.8 to 0.8
            assert (y == k).sum() == 2 * 20 * 60
            assert x[:, 0][y == k].mean().item() == pytest.approx(grey, abs=0.01)
    assert not torch.equal(batch.x_s, batch.x_t)


def test_components_are_made_small_down_to_what_they_choose():
    registry = load().registry
    attent = registry.alignment("attent")
    small = small_options(attent, registry)
    assert small["segmentor"]["encoder"] == "tu-test_resnet" and small["translator"]["width"] == 4
    over = small_options(attent, registry, {"segmentor": "deeplabv2", "translator": {"width": 6}})
    assert over["segmentor"] == {"name": "deeplabv2", "width": 4, "blocks": (1, 1, 1, 1)}
    assert over["translator"]["width"] == 6 and over["translator"]["blocks"] == 1


# The built-ins


@pytest.mark.parametrize("component", BUILT_IN, ids=lambda c: f"{c.kind}-{c.name}")
@pytest.mark.parametrize("name", ["documented", "options-written", "presets-valid", "pickles"])
def test_built_in_components_keep_what_is_cheap_to_check(component, name):
    checks = [c for c in checks_of(component.kind) if c.name == name]
    one = Subject.small(component, load().registry)
    assert [v.found for v in (judge(c, one) for c in checks) if v.outcome != "pass"] == []


@pytest.mark.parametrize("component", [c for c in BUILT_IN if c.kind == METHOD], ids=lambda c: c.name)
def test_the_steps_of_every_built_in_alignment_can_be_captured(component):
    verdict = judge(check("capturable-as-declared", METHOD), Subject.small(component, load().registry))
    assert (verdict.outcome, verdict.found) == ("pass", "") and component.load().capturable


def test_one_built_in_alignment_keeps_all_that_is_checked():
    one = Subject.small(load().registry.find("alignments", "feature"), load().registry, module="attentkit_builtin")
    verdicts = [judge(c, one) for c in checks_of(METHOD) if c.name not in COSTLY]
    assert [(v.check, v.found) for v in verdicts if v.outcome != "pass"] == []


@COMPLETE
@pytest.mark.parametrize("component", BUILT_IN, ids=lambda c: f"{c.kind}-{c.name}")
def test_built_in_components_keep_all_that_is_checked(component):
    one = Subject.small(component, load().registry, module="attentkit_builtin")
    verdicts = [judge(c, one) for c in checks_of(component.kind)]
    assert [(v.check, v.found) for v in verdicts if v.outcome == "fail"] == []
    assert {v.check for v in verdicts if v.outcome == "skip"} <= {"reads-a-data-set"}
