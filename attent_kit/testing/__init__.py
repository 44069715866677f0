"""The contract of each kind of component, as checks that a plugin's tests call.

    from attent_kit.testing import check_alignment

    def test_mine_keeps_the_contract():
        check_alignment(Mine, {"segmentor": {"encoder_depth": 3}})

Each raises an AssertionError that says what is wrong and how to fix it. `attentkit plugins check mine` and
`pytest --attentkit mine` run all of them, by name, on a small version of the component: `subject` says what is examined,
`verdicts` lists the checks, and the modules named after the kinds hold them. They run in seconds, on random images.
"""

from attent_kit.testing.bundles import check_alignment, check_discriminator, check_segmentor, check_translator
from attent_kit.testing.layouts import check_layout
from attent_kit.testing.selectors import check_selector
from attent_kit.testing.subject import Skipped, Subject
from attent_kit.testing.verdicts import CHECKS, Check, Verdict, checks_of, judge

__all__ = [
    "CHECKS", "Check", "Skipped", "Subject", "Verdict", "check_alignment", "check_discriminator", "check_layout",
    "check_segmentor", "check_selector", "check_translator", "checks_of", "judge",
]  # fmt: skip
