"""What paired tests over so many cases could see, whatever the scores: said before training and beside the results.

Of n cases and m comparisons

    smallest p     2^(1 - n), if all differences have one sign (Wilcoxon, 1945; the permutation test ends at the same)
    corrected      m 2^(1 - n), at most 1 (Holm, 1979)
    in sight       the mean difference, in SDs of the differences, that a paired t-test finds with 80 % power
                   (`significance.detectable`), at 0.05, and at 0.05 / m where Holm's correction begins

Seeds add nothing: those of a case are averaged.
"""

from typing import NamedTuple

from attent_kit.report.significance import ALPHA, POWER, detectable, p_text, smallest_p


class Power(NamedTuple):
    """What comparisons of one direction and metric could show."""

    cases: int
    """Of the comparison that has most."""
    family: int
    """Comparisons that Holm's correction is over."""
    smallest_p: float
    """The smallest p of any of them."""
    smallest_holm: float
    """The same, corrected."""

    @property
    def clause(self) -> str:
        """Why none of them can be significant; empty if one can be."""
        if self.cases == 1:
            return "one case cannot be tested"
        if self.smallest_p >= ALPHA:
            return f"with {self.cases} cases no paired test can reach p < {ALPHA} (smallest possible {p_text(self.smallest_p)})"
        if self.smallest_holm >= ALPHA:
            return (
                f"with {self.cases} cases and {self.family} comparisons no corrected p can be below {ALPHA} (smallest "
                f"possible {p_text(self.smallest_holm)})"
            )
        return ""

    @property
    def limit(self) -> str:
        """The same as a sentence, with what it would take."""
        if not (clause := self.clause):
            return ""
        needed = next(n for n in range(1, 100) if foreseen(n, self.family).smallest_holm < ALPHA)
        takes = f"{self.family} comparisons take" if self.family > 1 else "one comparison takes"
        fewer = "Name fewer comparisons beforehand, or test" if self.family > 1 and self.smallest_p < ALPHA else "Test"
        return f"{clause[0].upper()}{clause[1:]}. {fewer} on more patients: {takes} {needed} or more."

    @property
    def reach(self) -> str:
        """What the tests can see, where they can see anything."""
        if self.clause:
            return ""
        m, seen = self.family, f"{detectable(self.cases):.2f} SDs of the differences (d_z)"
        holm = f" after Holm's correction for {m} comparisons" if m > 1 else ""
        strict = (
            f", and of {detectable(self.cases, ALPHA / m):.2f} at {ALPHA}/{m}, where the correction begins"
            if m > 1
            else ""
        )
        least = p_text(self.smallest_holm)
        return (
            f"With {self.cases} cases the smallest possible p is {least}{holm}. A paired t-test finds a mean difference of "
            f"{seen} with {100 * POWER:.0f} % power at {ALPHA}{strict}."
        )

    def as_json(self) -> dict[str, float | None]:
        """The numbers behind the sentence; one case has no d_z."""
        return {**self._asdict(), "detectable_dz": detectable(self.cases) if self.cases > 1 else None}

    @property
    def sentence(self) -> str:
        """What no test can show, or what one can see."""
        return self.limit or self.reach


def foreseen(cases: int, comparisons: int) -> Power:
    """Of comparisons that all have the same cases, one or more."""
    least = smallest_p(cases)
    return Power(cases, comparisons, least, min(1.0, comparisons * least))
