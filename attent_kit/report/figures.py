"""Figures, and what they have in common."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from attent_kit.files import write_whole
from attent_kit.report.colours import organ_colour, red_green_blue

NAME, LETTER, LINE = 0.55, 0.062, 0.19
"""Inches of a legend: of a patch and the gap beside it, of a letter, and from line to line."""
NOTE_LETTER, NOTE_LINE = 0.055, 0.115
"""Inches of a letter and of a line below a figure."""
COLUMNS = 11
"""Pictures in one line of a figure."""


class Panel(NamedTuple):
    """One slice of the figure."""

    name: str
    image: np.ndarray
    """[H, W] in [-1, 1]."""
    translations: Mapping[str, np.ndarray]
    """The image in source style, by row label."""
    truth: np.ndarray | None
    """[H, W] class indices; None where the case has no labels."""
    predictions: Mapping[str, np.ndarray]
    """[H, W] class indices, by row label."""
    entropies: Mapping[str, np.ndarray] = MappingProxyType({})
    """[H, W], 0 certain to 1 uniform, by row label."""
    returns: Mapping[str, np.ndarray] = MappingProxyType({})
    """The translations back in target style, by row label."""
    case: str = ""
    """Id of the case that the slice is of."""


def plain_ticks(axis: Any) -> None:
    """Ticks of a logarithmic axis at 1, 2 and 5 times powers of ten, written as numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def save(figure: Any, stem: Path) -> list[Path]:
    """The figure as PNG and SVG, the same bytes for the same figure.

    The SVG names its letters and leaves their look to the reader's fonts.
    """
    import matplotlib

    files = [stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.svg")]
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "attent-kit"}):
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        # Laid out once: both files are the same figure, and half of the time is saved.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        write_whole(files[0], lambda temporary: figure.savefig(temporary, format="png", metadata={"Software": None}))
        write_whole(files[1], lambda temporary: figure.savefig(temporary, format="svg", metadata={"Date": None}))
    return files


def organ_legend(figure: Any, organs: Sequence[str], most: int, more: Sequence[Any] = ()) -> None:
    """The colours of the organs below a figure, and `more` patches: at most `most` in a line, fewer where their names are
    long. A figure of several lines grows by them."""
    from matplotlib.patches import Patch

    patches = [*(Patch(color=organ_colour(n), label=organ) for n, organ in enumerate(organs)), *more]
    columns = min(most, len(patches))
    if len(patches) > most:
        longest = max(len(str(patch.get_label())) for patch in patches)
        columns = max(1, min(most, int(figure.get_figwidth() / (NAME + LETTER * longest))))
    figure.set_figheight(figure.get_figheight() + LINE * (-(-len(patches) // columns) - 1))
    legend = figure.legend(handles=patches, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)


def segmentation_figure(
    panels: Sequence[Panel], organs: Sequence[str], title: str, stem: Path, notes: Sequence[str] = ()
) -> list[Path]:
    """PNG and SVG: a row for each slice, or a few lines where there is much to show; image, translations, truth, and every
    method's prediction beside each other. `notes` stand below, a paragraph each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    translated = list(dict.fromkeys(label for panel in panels for label in panel.translations))
    methods = list(dict.fromkeys(label for panel in panels for label in panel.predictions))
    cells = 2 + len(translated) + len(methods)
    lines = -(-cells // COLUMNS)
    columns = -(-cells // lines)
    rows = lines * len(panels)
    figure = Figure(figsize=(1.75 * columns, (1.75 + 0.2 * (lines > 1)) * rows + 0.9), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.atleast_2d(figure.subplots(rows, columns, squeeze=False))
    for axis in axes.flat:
        axis.set_axis_off()
    for n, panel in enumerate(panels):
        shown: list[tuple[str, Any, Any]] = [("target image", panel.image, None)]
        shown += [(f"in source style\n({label})", panel.translations.get(label), None) for label in translated]
        shown += [("truth", panel.image, panel.truth)] * (panel.truth is not None)
        shown += [(label, panel.image, panel.predictions.get(label)) for label in methods]
        own = axes[n * lines : (n + 1) * lines]
        for axis, (name, image, labels) in zip(own.flat, shown, strict=False):
            if image is None:
                continue
            axis.imshow(image, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
            if labels is not None:
                axis.imshow(overlay(labels), interpolation="nearest")
            if n == 0 or lines > 1:
                axis.set_title(name, fontsize=8, parse_math=False)
        first = own[0, 0]
        at = {"rotation": 90, "ha": "right", "va": "center", "transform": first.transAxes, "parse_math": False}
        first.text(-0.04, 0.5, panel.name, fontsize=7, **at)
    organ_legend(figure, organs, 6)
    figure.suptitle(title, fontsize=10, parse_math=False)
    _notes_below(figure, notes)
    return save(figure, stem)


def _notes_below(figure: Any, notes: Sequence[str]) -> None:
    """Paragraphs in small letters, for which the figure grows."""
    width = max(40, int(figure.get_figwidth() / NOTE_LETTER))
    lines = [line for note in notes for line in wrap(note, width)]
    if not lines:
        return
    inches = NOTE_LINE * (len(lines) + 0.5)
    figure.set_figheight(figure.get_figheight() + inches)
    share = inches / figure.get_figheight()
    figure.draw_without_rendering()
    # The layout makes room for a legend at the lower edge alone, and not for one above the notes.
    bottom = share
    for legend in figure.legends:
        legend.set_in_layout(False)
        legend.set_bbox_to_anchor((0, share, 1, 1 - share), figure.transFigure)
        bottom += legend.get_window_extent().height / figure.bbox.height
    figure.get_layout_engine().set(rect=(0, bottom, 1, 1 - bottom))
    figure.text(0.01, share, "\n".join(lines), va="top", fontsize=6.5, linespacing=1.15, parse_math=False)


def named(panel: Panel, names: Callable[[str], str]) -> Panel:
    """A panel with other labels of its rows."""

    def called(images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {names(label): image for label, image in images.items()}

    return panel._replace(
        translations=called(panel.translations),
        predictions=called(panel.predictions),
        entropies=called(panel.entropies),
        returns=called(panel.returns),
    )


def overlay(labels: np.ndarray) -> np.ndarray:
    """Organs in colour, see-through inside and opaque at their edge: [H, W] -> [H, W, 4]."""
    overlay = np.zeros((*labels.shape, 4), np.float32)
    padded = np.pad(labels, 1, mode="edge")
    inner = np.ones(labels.shape, bool)
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        inner &= padded[dy : dy + labels.shape[0], dx : dx + labels.shape[1]] == labels
    for organ in np.unique(labels[(labels > 0) & (labels < 255)]):
        colour = red_green_blue(organ_colour(int(organ) - 1)) / 255
        mask = labels == organ
        overlay[mask & inner] = (*colour, 0.45)
        overlay[mask & ~inner] = (*colour, 0.95)
    return overlay
