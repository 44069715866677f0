"""`attentkit audit`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from attent_kit.cli.output import bars, print_json, print_table
from attent_kit.plugins import load

if TYPE_CHECKING:
    from attent_kit.engine.study.translation_audit import TranslationAudits


@click.command("audit")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--baseline", type=click.Path(path_type=Path),
    help="Run that learned from the source alone: it judges the translations.  [the one beside the run]",
)  # fmt: skip
@click.option("--device", "-d", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def command(folder: Path, baseline: Path | None, device: str, as_json: bool) -> None:
    """Measure what the translation of a run does to anatomy, on validation and test cases of the target.

    FOLDER is a run, or a comparison, whose finished runs are audited if they translate. Each run gets
    translation_audit.csv, and a picture of the slices in which least is kept.

    \b
    edge              correlation of the gradient magnitudes of image and translation
    self-similarity   how alike each place and its neighbours are, in both (MIND)
    agreement         Dice of what a judge finds in the translation with the truth; without
                      labels with what it finds in the image
    volume-drift      by how much the organ's volume differs from that: -1 lost, 1 doubled

    The first two are 1 where nothing moved, whatever became of grey values; for scale, the last column says what they are for
    images compared with themselves a little aside. The judge is the baseline; without one the
    method's own segmentor, if that learned from source images as they are. Labels grade and do nothing else. All networks have
    their weights at the end of training, even where --select scored another snapshot.
    """
    from attent_kit.engine.study.runs import refuse_failed
    from attent_kit.engine.study.translation_audit import TranslationAuditOptions, audit_translations

    with bars(("audit", 0)) as (bar,):
        audited = audit_translations(
            TranslationAuditOptions(folder, baseline, device), load().registry, bar.count("audit")
        )
    if as_json:
        print_json([{"run": str(run), **row._asdict()} for run, audit in audited.audits.items() for row in audit.rows])
    else:
        _print(audited)
    refuse_failed(audited.failed)


def _print(audited: "TranslationAudits") -> None:
    """A table for each run, who judged, and the files."""
    from attent_kit.engine.study.translation_audit import MOVED
    from attent_kit.report.translation_audit import lines

    for run, audit in audited.audits.items():
        rows = [
            (line.measure, f"{line.mean:.2f}", f"{line.worst:.2f}", line.case, _moved(audit.moved.get(line.measure)))
            for line in lines(audit.rows)
        ]
        print_table(str(run), ("measure", "mean of cases", "worst", "case", f"{MOVED} pixels off"), rows)
        if audit.judge:
            click.echo(f"  The judge is {audit.judge}; expected is {audit.expected}.")
        else:
            click.echo(
                "  Nobody judges what is in the translations: name a run that learned from the source alone with --baseline."
            )
        for file in audit.files:
            click.echo(f"  {file}")


def _moved(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
