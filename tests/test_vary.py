"""`attentkit compare --vary`: a row for each value, every combination of two options, and what each row costs."""

import csv
import json

import pytest
import torch
from torch import nn

from attent_kit.engine.compare.costs import size_of
from attent_kit.engine.compare.suite import read_suite
from attent_kit.engine.compare.vary import vary
from attent_kit.errors import ConfigError
from attent_kit.interfaces import Alignment, Segmentation, Segmentor, Task
from attent_kit.plugins import load
from attent_kit.report.costs import Cost, block, costs_csv, texts
from support.cases import contents
from support.commands import SUITE
from support.messages import quotes

REGISTRY = load().registry


def varied(suite, tmp_path, *words, sets=()):
    files = {"mr": tmp_path / "mr.h5", "ct": tmp_path / "ct.h5"}
    return vary(read_suite(suite, REGISTRY), REGISTRY, files, tmp_path, words, sets)


def refusal(suite, tmp_path, *words):
    with pytest.raises(ConfigError) as error:
        varied(suite, tmp_path, *words)
    return str(error.value)


# Rows


def test_each_row_that_has_the_option_becomes_one_a_value(suite, tmp_path):
    rows = varied(suite, tmp_path, "segmentor.encoder=resnet18,tu-convnext_atto").rows
    assert [row.label for row in rows] == [
        "W/o adaptation, resnet18", "W/o adaptation, tu-convnext_atto", "AttENT, resnet18", "AttENT, tu-convnext_atto",
    ]  # fmt: skip
    assert rows[3].options == {"segmentor": {"encoder": "tu-convnext_atto"}} and rows[3].alignment == "attent"


def test_the_suite_that_is_varied_stays_as_it_was(suite, tmp_path):
    files = {"mr": tmp_path / "mr.h5", "ct": tmp_path / "ct.h5"}
    whole = read_suite(suite, REGISTRY)
    vary(whole, REGISTRY, files, tmp_path, ["segmentor.encoder=resnet18,resnet34"])
    assert [(row.label, row.options) for row in whole.rows] == [("W/o adaptation", {}), ("AttENT", {})]


def test_a_row_without_the_option_stays_as_it_is(suite, tmp_path):
    """W/o adaptation has no translator."""
    rows = varied(suite, tmp_path, "translator.width=4,8").rows
    assert [row.label for row in rows] == ["W/o adaptation", "AttENT, width=4", "AttENT, width=8"]


def test_the_option_of_a_component_is_looked_for_in_the_one_that_the_row_has(suite, tmp_path):
    """deeplabv2 has no encoder."""
    words = 'options = { segmentor = "deeplabv2" }\n'
    (tmp_path / "own.toml").write_text(suite.read_text().replace("{ encoder", '{ name = "smp", encoder') + words)
    rows = varied(tmp_path / "own.toml", tmp_path, "segmentor.encoder=resnet18,resnet34").rows
    assert [row.label for row in rows] == ["W/o adaptation, resnet18", "W/o adaptation, resnet34", "AttENT"]


def test_two_options_give_every_combination(suite, tmp_path):
    rows = varied(suite, tmp_path, "segmentor.encoder=resnet18,resnet34", "learning_rate=1,2.5").rows
    assert [row.label for row in rows[:4]] == [
        "W/o adaptation, resnet18, learning_rate=1", "W/o adaptation, resnet18, learning_rate=2.5",
        "W/o adaptation, resnet34, learning_rate=1", "W/o adaptation, resnet34, learning_rate=2.5",
    ]  # fmt: skip
    assert len(rows) == 8
    assert rows[1].options == {"segmentor": {"encoder": "resnet18"}, "learning_rate": 2.5}


def test_a_component_itself_can_be_varied_and_a_comma_in_brackets_parts_nothing(suite, tmp_path):
    rows = varied(suite, tmp_path, "segmentor=deeplabv2,resnet").rows
    assert [row.options for row in rows[:2]] == [{"segmentor": "deeplabv2"}, {"segmentor": "resnet"}]
    rows = varied(suite, tmp_path, "segmentor.decoder_channels=[16,8,8],[8,8,8]").rows
    assert [row.label for row in rows[:2]] == [
        "W/o adaptation, decoder_channels=[16, 8, 8]", "W/o adaptation, decoder_channels=[8, 8, 8]",
    ]  # fmt: skip


def test_a_value_lies_over_the_options_of_the_suite_the_row_and_the_command(attentkit, suite, tmp_path):
    words = (
        "--set",
        "segmentor.encoder=resnet50",
        "--vary",
        "segmentor.encoder=resnet18,resnet34",
        "--dry-run",
        "--json",
    )
    cells = json.loads(attentkit("compare", suite, "--seeds=0", "--directions=mr2ct", "-m", "attent", *words).out)
    assert [cell["row"] for cell in cells] == ["AttENT, resnet18", "AttENT, resnet34"]
    assert [cell["folder"].rpartition("mr2ct/")[2] for cell in cells] == [
        "attent-resnet18/seed0", "attent-resnet34/seed0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["segmentor.encodr=a,b"], "--vary segmentor.encodr: ... 'encoder'?"),
        (["segmnt_steps=1,2"], "--vary segmnt_steps: ... 'segment_steps'?"),
        (["segmentor.encoder"], "--vary segmentor.encoder: ... option=value,value"),
        (["segmentor.encoder=resnet18,"], "--vary segmentor.encoder=resnet18,: ... option=value,value"),
        (["segmentor.encoder=resnet18,resnet18"], "--vary segmentor.encoder: ... resnet18 ... twice"),
        (["learning_rate=1,2", "learning_rate=3,4"], "--vary learning_rate ... twice"),
        (["segmentor.encoder.name=a,b"], "--vary segmentor.encoder.name: "),
    ],
)  # fmt: skip
def test_what_cannot_be_varied_is_one_sentence(suite, tmp_path, words, sentence):
    assert quotes(refusal(suite, tmp_path, *words), sentence)


def test_a_value_that_is_wrong_is_met_before_anything_runs(attentkit, suite, tmp_path):
    outcome = attentkit("compare", suite, "--vary", "segmentor.encoder=resnet18,resnt34", "-o", tmp_path / "out")
    assert outcome.code == 2 and not (tmp_path / "out").exists()
    assert "row 'W/o adaptation, resnt34': alignment.segmentor.encoder: " in outcome.err
    assert "Did you mean 'resnet34'?" in outcome.err


# Costs


class Small(Segmentor):
    """A 3 x 3 convolution from one to two channels, and one that is never called."""

    feature_channels, feature_stride = 2, 1

    def __init__(self):
        nn.Module.__init__(self)
        self.layer = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, x):
        return Segmentation(self.layer(x), x)


class Costly(Alignment):
    def __init__(self):
        super().__init__(None, None, Task())
        self.S, self.D = Small(), nn.Linear(7, 1)

    def optimizers(self):
        return {}

    def stages(self):
        return []

    def predict(self, x_t):
        scores = self.S(x_t).logits.flatten(2)
        # [1, 2, 20] x [1, 20, 2], and attention: two such products over 20 keys of 2 channels.
        attended = nn.functional.scaled_dot_product_attention(*[scores.transpose(1, 2)[None]] * 3)
        return scores @ attended[0]


def test_multiply_adds_and_parameters_are_those_worked_out_by_hand():
    """The convolution: 4 x 5 pixels x 9 x 1 x 2 = 360; the product 2 x 20 x 2 = 80; attention 2 x (20 x 20 x 2) = 1600."""
    size = size_of(Costly, (1, 4, 5))
    assert size.multiply_adds == 360 + 80 + 1600
    assert (size.parameters, size.predicting) == (2 * 9 + 2 + 8, 2 * 9 + 2)


def test_a_network_that_needs_values_is_counted_all_the_same():
    def build():
        try:
            assert float(torch.ones(())) == 1  # refused by a tensor without values
        except RuntimeError as error:
            raise ConfigError("it cannot be built") from error
        return Costly()

    assert size_of(build, (1, 4, 5)) == size_of(Costly, (1, 4, 5))


def test_attention_is_counted_where_a_fused_kernel_would_compute_it():
    """Two heads, 64 queries and keys of 16 channels, on values: 2 x 2 x (64 x 64 x 16)."""

    class Attending(Costly):
        def predict(self, x_t):
            assert not x_t.is_meta  # so that the kernel of the processor is asked for
            heads = x_t.reshape(1, 2, 64, 16)
            return nn.functional.scaled_dot_product_attention(heads, heads, heads)

    assert size_of(Attending, (1, 32, 64)).multiply_adds == 2 * 2 * 64 * 64 * 16


def test_counting_leaves_the_random_numbers_of_the_run_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    size_of(Costly, (1, 4, 5))
    assert torch.equal(torch.rand(3), expected)


COSTS = [
    Cost("A, x", 2_000_000, 1_500_000, 5_600_000_000, (1, 256, 256), 3.25, "segment", 40.0, "cpu"),
    Cost("B | y", 20, 20, 12_000_000, (1, 256, 256), None, "segment", 1234.5, "cpu"),
]


def test_costs_are_a_block_of_the_table_of_its_own():
    assert texts(COSTS[0]) == ["A, x", "2.00 M", "1.50 M", "5.60 G", "3.25", "40"]
    lines = block(COSTS)
    assert lines[0] == "## Cost" and "| B \\| y | 0.00 M | 0.00 M | 0.01 G | - | 1.23e+03 |" in lines
    assert "predicting one slice of 1 x 256 x 256" in "\n".join(lines)
    assert block([]) == []
    rows = list(csv.DictReader(costs_csv(COSTS).splitlines()))
    assert rows[0]["multiply_adds"] == "5600000000" and rows[1]["training_steps_per_second"] == ""


@pytest.fixture(scope="module")
def compared(prepared, tmp_path_factory):
    """Two encoders of W/o adaptation, MR to CT, and the words that made them."""
    from attent_kit.cli import run

    folder = tmp_path_factory.mktemp("varied")
    (folder / "tiny.toml").write_text(SUITE.format(prepared=prepared))
    words = ["compare", str(folder / "tiny.toml"), "--seeds=0", "--directions=mr2ct", "-d", "cpu", "-m", "source_only"]
    words += ["--vary", "segmentor.encoder=tu-test_resnet,tu-test_convnext", "--out", str(folder / "out")]
    assert run(words) == 0
    return folder / "out", words


def test_a_varied_comparison_has_its_costs_beside_the_table(compared):
    out, _ = compared
    rows = {row["method"]: row for row in csv.DictReader((out / "costs.csv").read_text().splitlines())}
    assert list(rows) == ["W/o adaptation, tu-test_resnet", "W/o adaptation, tu-test_convnext"]
    for row in rows.values():
        assert (row["channels"], row["height"], row["training_stage"]) == ("1", "32", "segment")
        assert int(row["parameters"]) == int(row["parameters_predicting"]) > 0 and int(row["multiply_adds"]) > 0
        assert float(row["training_steps_per_second"]) > 0 and float(row["prediction_slices_per_second"]) > 0
    table = (out / "table.md").read_text()
    assert table.count("## Cost") == 1 and "| W/o adaptation, tu-test_convnext | 0." in table.partition("## Cost")[2]


def test_costs_are_measured_once_and_shown_again(attentkit, compared, monkeypatch):
    out, words = compared
    before = contents(out)

    def refuse(*_, **__):
        raise AssertionError("it was measured again")

    monkeypatch.setattr("attent_kit.engine.compare.costs._measured", refuse)
    outcome = attentkit(*words)
    assert outcome.code == 0 and "multiply-adds a slice" in outcome.out
    assert contents(out) == before


def test_a_damaged_cost_is_measured_again(attentkit, compared, tmp_path):
    out, words = compared
    (file,) = out.glob("mr2ct/*resnet/seed0/cost.json")
    kept = json.loads(file.read_text())
    for damage in ("{", "[]", json.dumps({"row": kept["row"]})):
        file.write_text(damage)
        assert attentkit(*words).code == 0
        assert json.loads(file.read_text())["multiply_adds"] == kept["multiply_adds"]
