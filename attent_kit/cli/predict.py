"""`attentkit predict`."""

from pathlib import Path

import click

from attent_kit.cli.output import bars, print_json
from attent_kit.plugins import load


@click.command("predict")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("input", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--device", "-d", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--overwrite", is_flag=True, help="Replace label maps that are there already; never the input.")
@click.option("--json", "as_json", is_flag=True, help="Print the written files as JSON.")
def command(run: Path, input: Path, out: Path, device: str, overwrite: bool, as_json: bool) -> None:
    """Segment target volumes with the trained run in the folder RUN.

    INPUT is a NIfTI file or a folder of them; OUT is a file or a folder accordingly. Labels come back on the grid of each
    input, with its affine and header.
    """
    from attent_kit.engine.volumes import predict_volumes

    with bars(("predict", 0)) as (bar,):

        def tell(case: str, done: int, total: int) -> None:
            if done == 0:
                bar.reset("predict", total)
            bar.to(done, case)

        written = predict_volumes(run, input, out, load().registry, device, tell, overwrite)
    if as_json:
        print_json(written)
        return
    for path in written:
        click.echo(str(path))
