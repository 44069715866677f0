"""Methods asked for what they cannot do: one sentence, exit code 2, and nothing of a run left behind."""

import pytest

from attent_kit.errors import ConfigError
from attent_kit.interfaces import Task
from support.commands import train_words
from support.messages import quotes


@pytest.mark.parametrize(
    "alignment, words, sentence",
    [
        ("attent", ["--set=preset=papr"], "alignment.preset: ... 'papr' ... 'paper'?"),
        ("sifa", ["--set=preset=paper-v2"], "There are: paper, authors-code, paper-v1."),
        ("attent", ["--set=preset=paper"], "alignment.segmentor.encoder: ... width, blocks,"),
        ("cycada", ["--set=adversary=feature"], "alignment.adversary: ... 'score', 'features' or 'none'"),
        ("cyclegan", ["--set=image_discriminator.layers=4"], "48 x 48 ... 32 x 32"),
        ("ada_output", ["--set=segmentor.auxiliary=3"], "1 to 2 here, not 3"),
    ],
)  # fmt: skip
def test_a_method_that_cannot_do_what_is_asked_says_so(attentkit, prepared, tmp_path, alignment, words, sentence):
    outcome = attentkit(*train_words(prepared, tmp_path / "run", *words, alignment=alignment))
    assert outcome.code == 2 and quotes(outcome.err, sentence)
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "run/checkpoint.ckpt").exists()


@pytest.mark.parametrize(
    "alignment, word, sentence",
    [
        ("sifa", "segmentor.name=smp", "SIFA v2 ... low-level head ... 'smp'"),
        ("synsegnet", "class_weights=[1.0, 2.0]", "2 weights ... 5 classes ... background"),
    ],
)
def test_a_method_that_cannot_be_built_as_asked_says_so(attentkit, prepared, tmp_path, alignment, word, sentence):
    files = ("-s", prepared / "mr.h5", "-t", prepared / "ct.h5")
    outcome = attentkit("train", alignment, *files, "-d", "cpu", "-o", tmp_path / "run", "--set", word)
    assert outcome.code == 2 and quotes(outcome.err, sentence)
    assert not (tmp_path / "run/config.toml").exists()


def test_a_preset_that_no_row_of_a_comparison_has_is_refused(attentkit, suite, tmp_path):
    outcome = attentkit("compare", suite, "-o", tmp_path / "out", "--set", "preset=author-code")
    assert outcome.code == 2
    assert quotes(outcome.err, "--set preset: ... 'author-code' ... 'authors-code'?")
    assert not (tmp_path / "out").exists()


def test_a_preset_reaches_the_rows_that_have_it_below_the_options_of_the_suite(attentkit, suite, tmp_path):
    """AttENT has authors-code and W/o adaptation has not; the segmentor of the suite replaces that of the preset."""
    import json

    words = ("--set", "preset=authors-code", "--set", "segmentor.name=smp", "--plan", "--json", "-d", "cpu")
    outcome = attentkit("compare", suite, "-o", tmp_path / "out", "--seeds=0", "--directions=mr2ct", *words)
    stages = {(s["row"], s["stage"]): s["batch_size"] for s in json.loads(outcome.out)["stages"]}
    assert stages["AttENT", "translate"] == 1 and stages["AttENT", "segment"] == 2


def test_background_alone_is_nothing_to_segment():
    with pytest.raises(ConfigError, match="--organs"):
        Task(organs=())


def test_preparing_without_an_organ_is_refused(attentkit, volumes, tmp_path):
    outcome = attentkit(
        "prepare", volumes / "ct/images", "--labels", volumes / "ct/labels", "--modality", "ct",
        "--out", tmp_path / "ct.h5", "--organs", "*=0",
    )  # fmt: skip
    assert outcome.code == 2 and "1 to 254 organs, not 0" in outcome.err
    assert not (tmp_path / "ct.h5").exists()
