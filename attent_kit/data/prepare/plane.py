"""The plane in which the slices of a domain are cut: what was asked for, what the data set says, or what its scans show."""

from collections import Counter

from attent_kit.data.prepare.cases import read_scan
from attent_kit.data.prepare.options import AUTO
from attent_kit.data.prepare.plan import DomainPlan
from attent_kit.data.scans.volumes import read_header
from attent_kit.data.sets.layout import Entry, Layout
from attent_kit.data.space.geometry import COARSER, PLANES, Grid
from attent_kit.data.workers import asking
from attent_kit.errors import ConfigError

NO_ONE = "no one"


def settled_plane(asked: str | None, settled: DomainPlan, workers: int) -> tuple[str, tuple[str, ...]]:
    """The plane, and what was decided, a sentence each. With "auto" that of most scans; axial if they have no one.

    ConfigError for a plane that one of the data sets cannot be cut in.
    """
    fixed = {layout.plane: layout for layout in settled.layouts if layout.plane is not None}
    for plane, layout in fixed.items():
        if {asked, *fixed} - {None, AUTO, plane}:
            other = asked if asked not in (None, AUTO) else next(name for name in fixed if name != plane)
            raise ConfigError(
                f"{layout.path} holds {plane} slices whose distance is not known, so it cannot be cut into {other} ones: leave "
                "--plane out, or the data set."
            )
        return plane, (f"Slices {plane}, as the data set has them.",) * (asked == AUTO)
    if asked != AUTO:
        return asked or PLANES[0], ()
    with asking(workers, settled.layouts) as ask:
        found = ask(grid_of, [(settled.layouts[settled.home[entry.id]], entry) for entry in settled.entries])
        grids = list(found)
    votes = Counter(grid.acquired or NO_ONE for grid in grids)
    plane, count = max(votes.items(), key=lambda vote: (vote[1], vote[0]))
    of_all = f"{count} of {len(grids)} scans"
    if plane == NO_ONE:
        mm = " x ".join(f"{side:.3g}" for side in grids[0].spacing)
        return PLANES[0], (
            f"Slices {PLANES[0]}: in {of_all} no side of a voxel is {COARSER:g} times as long as the others ({mm} mm in the "
            "first), so they were acquired in 3-D or resampled; another --plane is possible.",
        )
    distance, *pixel = next(grid.cut(plane).planes_spacing for grid in grids if grid.acquired == plane)
    return plane, (
        f"Slices {plane}, as {of_all} were acquired: {distance:.3g} mm apart with pixels of {max(pixel):.3g} mm.",
    )


def grid_of(case: tuple[Layout, Entry]) -> Grid:
    """The native grid of a case of a layout: from the header of a NIfTI file, else by reading the case."""
    layout, entry = case
    if len(entry.images) == 1 and entry.images[0].name.lower().endswith((".nii", ".nii.gz")):
        shape, affine, _ = read_header(entry.images[0])
    else:
        image = read_scan(layout, entry).image
        shape, affine = image.array.shape, image.affine
    return Grid.of(shape[:3], affine, 1)
