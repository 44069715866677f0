"""`attentkit compare`."""

from pathlib import Path

import click

from attent_kit.asked import look_up
from attent_kit.cli.output import listed
from attent_kit.cli.plugin_files import plugin_option
from attent_kit.cli.screen import Screen, print_grid, print_price
from attent_kit.errors import ConfigError
from attent_kit.plugins import load


@click.command("compare")
@click.argument("suite", default="phantom")
@click.option("--variant", help="Variant of the suite, from its [variants].")
@click.option("--alignments", "-m", help="Comma-separated; an alignment that is not a row of the suite becomes one.")
@click.option("--seeds", help="Comma-separated, in place of the suite's.")
@click.option("--directions", help="Comma-separated, for example mr2ct,ct2mr.")
@click.option("--folds", metavar="NUMBERS", help="Comma-separated, some of the suite's folds, from 0.  [all]")
@click.option(
    "--channels", type=click.IntRange(min=1), metavar="N",
    help="Neighbouring slices as channels (2.5-D), an odd number.  [as the suite says, or as prepared]",
)  # fmt: skip
@click.option("--set", "words", multiple=True, metavar="OPTION=VALUE", help="For every row that has the option.")
@click.option(
    "--vary",
    "varied",
    multiple=True,
    metavar="OPTION=A,B",
    help="A row for each value, of every row that has the option.",
)
@click.option("--device", "-d", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--devices", help="Comma-separated, one process each: 0,1 or cuda:0,cuda:1 or cpu,cpu.  [a GPU, or each core]"
)
@click.option(
    "--devices-per-run", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
    help="Train each run on N devices of a machine together; of --devices so many at a time.",
)  # fmt: skip
@click.option("--launcher", metavar="NAME", help="What starts the runs: local, or a plugin's, such as slurm.")
@click.option(
    "--launch",
    "launch",
    multiple=True,
    metavar="OPTION=VALUE",
    help="For the launcher and its jobs: gpus, cpus, minutes, memory, queued, retries, its own.",
)
@click.option("--stage-data", is_flag=True, help="Let each node copy the prepared files to its own disk first.")
@click.option(
    "--ablate", metavar="NAMES", help="Alignments to take apart: with all their terms, and without each of them."
)
@click.option("--out", "-o", type=click.Path(path_type=Path), help="Folder of all results.  [runs/NAME]")
@click.option("--dry-run", is_flag=True, help="Print the grid and stop.")
@click.option(
    "--plan", "price", is_flag=True, help="Measure a few steps of each row, print what all would cost, and stop."
)
@click.option(
    "--select", default="last", show_default=True, metavar="NAME",
    help="Snapshot that counts: last, a selector (`attentkit list selectors`), or target-oracle.",
)  # fmt: skip
@click.option("--reference", metavar="LABEL", help="Row that the others are tested against.  [the suite's first]")
@click.option("--slide-test", is_flag=True, help="Add the test that the slides of AttENT seem to have used.")
@plugin_option
@click.option("--track", metavar="NAMES", help="Comma-separated trackers, for example tensorboard,wandb.")
@click.option(
    "--shift",
    is_flag=True,
    help="Then measure the shift of each run and audit its translation, at the end of training.",
)
@click.option("--no-report", is_flag=True, help="Leave out report.html, table.tex, pairs.csv and figures/.")
@click.option("--json", "as_json", is_flag=True, help="Print grid or scores as JSON.")
def command(
    suite: str, variant: str | None, alignments: str | None, seeds: str | None, directions: str | None,
    folds: str | None, channels: int | None, words: tuple[str, ...], varied: tuple[str, ...], device: str, devices: str | None,
    devices_per_run: int, launcher: str | None, launch: tuple[str, ...], stage_data: bool, ablate: str | None, out: Path | None,
    dry_run: bool, price: bool, select: str, reference: str | None,
    slide_test: bool, track: str | None, shift: bool, no_report: bool, as_json: bool,
) -> None:  # fmt: skip
    """Run the missing cells of a comparison and print its table.

    SUITE is a TOML file or the name of an installed suite (`attentkit list suites`); without it the small phantom runs,
    MR to CT. Stop and restart it as you like, also in several processes at once. The results lie in --out: report.html,
    table.md, table.csv, table.tex, scores.csv, comparisons.csv, pairs.csv, figure-mr2ct.png, for three rows or more ranks.csv
    and ranks-mr2ct-dice.png, and gaps.csv where rows span a gap.

    A cell is known by its options, its data and the versions of its code: another row, seed, direction or fold runs what is
    missing, and where options of a row change, that row alone is trained again and its earlier runs are kept beside. Another
    --select trains nothing again.

    With --launcher each run is a job, on a cluster for example: stop this command, and the jobs go on; start it again, and it
    waits for them. `attentkit status`, `attentkit status --logs RUN` and `attentkit cancel` know them.
    """
    registry = look_up(
        load().registry, alignments=listed(alignments), suite=suite, variant=variant, select=select, track=listed(track),
        launcher=launcher,
    )  # fmt: skip
    if price:
        # Before torch is imported, which takes seconds.
        click.echo("Reading the suite, and then measuring a step of each stage of each row.", err=True)
    from attent_kit.engine.conduct.compare import compare
    from attent_kit.engine.conduct.grid import expanded, planned_jobs, priced
    from attent_kit.engine.conduct.request import CompareRequest

    request = CompareRequest(
        suite=suite,
        variant=variant,
        alignments=listed(alignments),
        seeds=_numbers(seeds, "seeds"),
        directions=listed(directions),
        folds=_numbers(folds, "folds"),
        channels=channels,
        set=words,
        vary=varied,
        ablate=None if ablate is None else listed(ablate),
        devices=_devices(device, devices),
        devices_per_run=devices_per_run,
        out=out,
        select=select,
        reference=reference,
        slide_test=slide_test,
        track=listed(track),
        shift=shift,
        report=not no_report,
        launcher=launcher,
        launch=launch,
        stage_data=stage_data,
    )
    screen = Screen(as_json)
    if price:
        print_price(priced(request, registry, screen), as_json)
    elif dry_run:
        grid = expanded(request, registry)
        print_grid(grid, as_json, planned_jobs(grid, registry))
    else:
        screen.end(compare(request, registry, screen)).check()


def _devices(device: str, devices: str | None) -> list[str]:
    if devices is None:
        return [device]
    if device != "auto":
        raise ConfigError("--device and --devices: give one of them.")
    return listed(devices)


def _numbers(text: str | None, option: str) -> list[int]:
    try:
        return [int(word) for word in listed(text)]
    except ValueError:
        raise ConfigError(f"--{option} {text}: write whole numbers, for example 0,1,2.") from None
