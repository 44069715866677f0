"""`attentkit check`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from attent_kit.cli.output import bars, print_json
from attent_kit.plugins import load

if TYPE_CHECKING:
    from attent_kit.data.check.check import CheckResult
    from attent_kit.data.doubts.findings import Finding

FILES_SHOWN = 3


@click.command("check")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--layout", help="How a data set is read; recognised if left out. `attentkit list layouts` shows all.")
@click.option("--part", help="Which of several data sets in a PATH, such as a sequence.  [all]")
@click.option("--labels", type=click.Path(path_type=Path), help="Label maps, where PATH holds images only.")
@click.option("--modality", help="ct or mr, where the data set does not say; Hounsfield units are checked in ct.")
@click.option(
    "--organs", help="Organs with their label values, as in `attentkit prepare`.  [as the data set names them]"
)
@click.option(
    "--add", nargs=3, multiple=True, metavar="PATH LABELS ORGANS",
    help="Another data set, its label maps and its organs, as in `attentkit prepare`; - leaves one to the data set.",
)  # fmt: skip
@click.option(
    "--target", "targets", multiple=True, type=click.Path(path_type=Path),
    help="Which of the prepared files is to be a target: labels must not have chosen its slices.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the findings as a JSON list.")
def command(
    paths: tuple[Path, ...], layout: str | None, part: str | None, labels: Path | None, modality: str | None,
    organs: str | None, add: tuple[tuple[str, str, str], ...], targets: tuple[Path, ...], as_json: bool,
) -> None:  # fmt: skip
    """Look for what is wrong with data sets on disk, or with prepared files (.h5).

    Geometry and orientation of headers, label values, Hounsfield units, labels that do not lie on the image, organs on the
    wrong side, stacks that are upside down, cases unlike the others, patients that occur twice, test cases that are
    trained on, slices that labels chose, many slices without an organ, and what a prepared file says about itself. Give both
    domains at once, so that they are compared with each other.

    Exit code 3 if there is an error, 0 with warnings and notes alone.
    """
    from attent_kit.data.check.check import CheckOptions, check

    options = CheckOptions(layout, part, labels, modality, organs, targets, add)
    with bars(("check", 0)) as (bar,):
        found = check(paths, load().registry, options, bar.count("check"))
    if as_json:
        print_json([finding._asdict() for finding in found.findings])
    else:
        _print(found)
    raise click.exceptions.Exit(found.exit_code)


def _print(found: "CheckResult") -> None:
    """Findings with the same words once, with their files; then how many there are."""
    together: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in found.findings:
        together.setdefault((finding.severity, finding.check, finding.sentence), []).append(finding)
    for (severity, check, sentence), findings in together.items():
        click.echo(f"{severity}, {check}: {_places(findings)}\n    {sentence}")
    counts = {
        severity: sum(f.severity == severity for f in found.findings) for severity in ("error", "warning", "note")
    }
    words = ", ".join(f"{n} {severity}{'' if n == 1 else 's'}" for severity, n in counts.items())
    cases, sets = found.cases, found.data_sets
    click.echo(f"{cases} case{'' if cases == 1 else 's'} of {sets} data set{'' if sets == 1 else 's'}: {words}.")


def _places(findings: "Sequence[Finding]") -> str:
    from attent_kit.data.sets.pairs import case_name

    named = [
        f.file if f.case in ("", *Path(f.file).parts, case_name(f.file)) else f"{f.file} (case {f.case})"
        for f in findings
    ]
    more = len(named) - FILES_SHOWN
    return ", ".join(named[:FILES_SHOWN]) + (f" and {more} more" if more > 0 else "")
