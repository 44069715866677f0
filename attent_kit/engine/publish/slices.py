"""The sections of the report that show slices: the median and the worst case of each direction, and translations."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from attent_kit.data.prepared.file import Prepared
from attent_kit.data.sets.splits import WHOLE
from attent_kit.engine.compare.external import ShownExternal
from attent_kit.engine.compare.results_folder import ShownRun
from attent_kit.engine.publish.panels import panel
from attent_kit.engine.run.folder import Answers
from attent_kit.engine.train.kept import RULE, first_cases, median_and_worst
from attent_kit.errors import AttentKitError
from attent_kit.report.colours import organ_colour
from attent_kit.report.compared import Compared
from attent_kit.report.figures import Panel, named, segmentation_figure
from attent_kit.report.metrics import DICE
from attent_kit.report.page import Heading, Picture, Section, Strip, Strips, Text
from attent_kit.report.pictures import entropy_picture, picture
from attent_kit.report.scores import Score

PLACES = ("median", "worst")


class Gallery:
    """Slices of a comparison, read once."""

    def __init__(
        self,
        runs: Sequence[ShownRun],
        targets: Mapping[str, Prepared | str],
        compared: Compared,
        folder: Path,
        externals: Sequence[ShownExternal] = (),
    ) -> None:
        """`targets` by direction, or a sentence saying why there is none."""
        self.externals = externals
        self.compared, self.folder = compared, folder
        self.doubts: list[str] = []
        self._runs, self._targets = runs, targets
        self._free = {method.label for method in compared.methods if not method.bound}

    @cached_property
    def cases(self) -> dict[str, list[tuple[str, Panel]]]:
        """(median or worst, its slice) by direction; the first test cases where nothing is scored."""
        made = {}
        for direction, target in self._targets.items():
            if isinstance(target, str):
                continue
            own = [s for s in self.compared.scores if s.direction == direction]
            ranked = median_and_worst([s for s in own if s.alignment in self._free] or own)
            known = target.ids("test")
            places = list(zip(PLACES, ranked, strict=False)) if ranked else [("", case) for case in first_cases(target)]
            panels = [(place, self._panel(direction, target, case)) for place, case in places if case in known]
            made[direction] = [(place, found) for place, found in panels if found is not None]
        return made

    @cached_property
    def first(self) -> dict[str, list[Panel]]:
        """Slices of the first test cases by direction."""
        made = {}
        for direction, target in self._targets.items():
            if not isinstance(target, str):
                panels = [self._panel(direction, target, case) for case in first_cases(target)]
                made[direction] = [found for found in panels if found is not None]
        return made

    def translation(self, direction: str, row: str, case: str) -> list[Picture]:
        """Image, translation and the way back of one case; empty if the run has kept none of it."""
        target = self._targets[direction]
        if isinstance(target, str) or case not in target.ids("test"):
            return []
        p = self._panel(direction, target, case)
        if p is None or row not in p.translations:
            return []
        return [Picture(picture(p.image), f"Image of {p.name}.", p.name), *_styles(p, row)]

    def absence(self) -> list[str]:
        """Why there is nothing to show, where that is known."""
        return list(dict.fromkeys(target for target in self._targets.values() if isinstance(target, str)))

    def _panel(self, direction: str, target: Prepared, case: str) -> Panel | None:
        answers: dict[str, Answers] = {}
        for run in self._runs:
            if run.direction == direction and run.done and (run.fold == WHOLE or run.answers.prediction(case).exists()):
                answers.setdefault(run.row, run.answers)
        answers |= {each.row: each.answers for each in self.externals if each.direction == direction}
        try:
            return panel(target, case, answers)
        except AttentKitError as error:
            self.doubts.append(f"{case} cannot be shown: {error}")
            return None


def cases_section(gallery: Gallery) -> Section:
    """Image, truth and every row's prediction, entropy map and translation; figures of them in the folder of figures."""
    blocks: list = []
    compared = gallery.compared
    legend = [(organ_colour(n), organ) for n, organ in enumerate(compared.organs)]
    for direction, panels in gallery.cases.items():
        domains = compared.titles[direction]
        for place, found in panels:
            own = [s for s in compared.scores if s.direction == direction]
            what = f"{domains}: {place} case, {found.name}" if place else f"{domains}: {found.name}"
            strips = [Strip("Target", _target(found))]
            strips += [_strip(found, row, own) for row in found.predictions]
            blocks += [Heading(what), Strips(strips, legend)]
            stem = gallery.folder / f"cases-{direction}-{place or found.case}"
            called = named(found, lambda label: compared.figure_names.get(label, label))
            segmentation_figure(
                [called], compared.organs, f"{compared.title}, {what}", stem, notes=compared.figure_notes
            )
    if not blocks:
        said = gallery.absence() or ["There is no test case to show."]
        return Section("cases", "Median and worst case", [Text(said)])
    shown = [(place, p) for panels in gallery.cases.values() for place, p in panels]
    outside = {each.row for each in gallery.externals}
    without = [row for _, p in shown for row in p.predictions if row not in {*p.entropies, *outside}]
    words = [
        RULE if any(place for place, _ in shown) else "The first test cases by name.",
        "Dice is that of the whole case and of this seed. Entropy maps: black is certain, bright yellow uncertain.",
        *_not_kept("entropy map", without),
        *compared.figure_notes,
        *gallery.absence(),
    ]
    return Section("cases", "Median and worst case", [Text(words), *blocks])


def translations_section(gallery: Gallery) -> Section:
    """Each translating row on the first test cases: image, in source style, and back."""
    blocks: list = []
    for direction, panels in gallery.first.items():
        rows = dict.fromkeys(row for p in panels for row in p.translations)
        # A column is a case, so that the image stands above what is made of it.
        images = [Picture(picture(p.image), f"Target image, {p.name}.", p.name) for p in panels]
        strips = [Strip("Target", images, by_three=True)] if rows else []
        for row in rows:
            styled = [_styles(p, row) for p in panels if row in p.translations]
            ways = [pictures[n] for n in (0, 1) for pictures in styled if len(pictures) > n]
            strips.append(Strip(row, ways, by_three=True))
        if strips:
            blocks += [Heading(gallery.compared.titles[direction]), Strips(strips)]
    if not blocks:
        said = gallery.absence() or ["No row translates images, or no run has kept a translation."]
        return Section("translations", "Translations", [Text(said)])
    panels = [p for shown in gallery.first.values() for p in shown]
    words = ["The first test cases by name, one column each: target image, in source style, and back in target style."]
    words += _not_kept("way back", [row for p in panels for row in p.translations if row not in p.returns])
    words += filter(None, [gallery.compared.attribution])
    return Section("translations", "Translations", [Text(words), *blocks])


def _target(p: Panel) -> list[Picture]:
    pictures = [Picture(picture(p.image), f"Target image, {p.name}.", "image")]
    if p.truth is not None:
        pictures.append(Picture(picture(p.image, p.truth), f"Truth of {p.name} as contours.", "truth"))
    return pictures


def _strip(p: Panel, row: str, scores: Sequence[Score]) -> Strip:
    own = [s for s in scores if (s.alignment, s.case, s.metric) == (row, p.case, DICE.name)]
    first = [s.value for s in own if s.seed == own[0].seed and s.value == s.value]
    dice = f", {DICE.title} {DICE.number(sum(first) / len(first))} {DICE.shown_unit}" if first else ""
    pictures = [
        Picture(picture(p.image, p.predictions[row]), f"Prediction of {row} for {p.name}.", f"prediction{dice}")
    ]
    if row in p.entropies:
        pictures.append(Picture(entropy_picture(p.entropies[row]), f"Entropy map of {row} for {p.name}.", "entropy"))
    return Strip(row, [*pictures, *_styles(p, row)])


def _not_kept(what: str, rows: Sequence[str]) -> list[str]:
    names = ", ".join(dict.fromkeys(rows))
    return [f"There is no {what} of {names}: slices.npz of its run is missing or damaged."] if names else []


def _styles(p: Panel, row: str) -> list[Picture]:
    styles = ((p.translations, "in source style"), (p.returns, "and back"))
    return [
        Picture(picture(found[row]), f"{p.name} {words}, by {row}.", words) for found, words in styles if row in found
    ]
