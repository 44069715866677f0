"""`attentkit predict`."""

from pathlib import Path

import click

from attent_kit.cli.output import bars, print_json
from attent_kit.cli.plugin_files import plugin_option
from attent_kit.plugins import load


@click.command("predict")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("input", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--series", metavar="UID", help="Which DICOM series of INPUT, where there are several.")
@click.option("--select", default="last", show_default=True, metavar="NAME", help="Snapshot of RUN, as `train` has it.")
@click.option("--probabilities", is_flag=True, help="Write CASE_probabilities.nii.gz, background first.")
@click.option("--entropy", is_flag=True, help="Write CASE_entropy.nii.gz, 0 certain to 1 undecided.")
@click.option("--translation", is_flag=True, help="Write CASE_translation.nii.gz, the image in source style, -1 to 1.")
@click.option(
    "--dicom-seg",
    type=click.Path(path_type=Path),
    help="Write the labels of a DICOM series as a DICOM Segmentation (.dcm), too.",
)
@click.option("--strict", is_flag=True, help="Refuse images unlike those of the training instead of warning.")
@click.option("--device", "-d", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist already; never the input.")
@plugin_option
@click.option("--json", "as_json", is_flag=True, help="Print the written files as JSON.")
def command(
    run: Path, input: Path, out: Path, series: str | None, select: str, probabilities: bool, entropy: bool, translation: bool,
    dicom_seg: Path | None, strict: bool, device: str, overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    """Segment target images with the trained run RUN: its folder, or a zip of `attentkit pack`. Of the folder its config.toml,
    domain.json and segmentor.safetensors will do.

    INPUT is a NIfTI file, a folder of them, or the folder of a DICOM series. OUT is the name of a label map (.nii.gz) or a
    folder. Labels come back on the grid of each image, with its affine and header; JSON beside them says what was
    done and what it is not good for.
    """
    from attent_kit.engine.apply.volumes import PredictOptions, predict_volumes

    asked = {"probabilities": probabilities, "entropy": entropy, "translation": translation}
    options = PredictOptions(
        device, series, select, [name for name in asked if asked[name]], dicom_seg, strict, overwrite
    )
    with bars(("predict", 0)) as (bar,):

        def tell(what: str, image: str, done: int, total: int) -> None:
            if done == 0:
                bar.reset(what, total)
            bar.to(done, image)

        written = predict_volumes(run, input, out, load().registry, options, tell, bar.say)
    if as_json:
        print_json(written)
        return
    for path in written:
        click.echo(str(path))
