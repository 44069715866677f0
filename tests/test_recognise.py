"""Which layout reads a folder: the one that recognises it, built-in or a stranger's; and what it cannot lead astray."""

import json
from dataclasses import replace
from importlib.metadata import entry_points

import numpy as np
import pytest

from attent_kit.data.prepare.options import PrepareOptions
from attent_kit.data.prepare.plan import PairList, leads_out
from attent_kit.data.prepare.prepare import prepare
from attent_kit.data.prepared.file import Prepared
from attent_kit.data.sets.pairs import Pair
from attent_kit.data.sets.recognise import open_layout
from attent_kit.errors import AttentKitError, ConfigError, DataError, RunError, UnknownComponent
from attent_kit.plugins import load
from support.cases import write_case
from support.commands import prepare_words, says
from support.messages import quotes

STRANGER = '''
import json
from pathlib import Path

import nibabel as nib
import numpy as np

from attent_kit import hookimpl
from attent_kit.data.sets.labelmap import LabelMap
from attent_kit.layouts import Entry, Layout, Scan
from attent_kit.data.scans.volumes import Volume


class Ward(Layout):
    """A ward: cases.json and one .ward a patient.

    Exported by our hospital.
    """

    organs = LabelMap.of({"spleen": 1, "kidney_left": 2, "gall bladder": 3, "Liver": 7})

    @classmethod
    def recognises(cls, path):
        return (path / "cases.json").is_file()

    @classmethod
    def parts(cls, path):
        return tuple(json.loads((path / "cases.json").read_text())["parts"])

    def entries(self):
        cases = json.loads((self.path / "cases.json").read_text())["cases"]
        return [Entry(id=c.get("id", c["file"]), images=(self.path / c["file"],), labels=(self.path / c["file"],),
                      modality=c.get("modality"), split=c.get("split")) for c in cases]

    def read(self, entry):
        with np.load(entry.images[0]) as arrays:
            image, labels = arrays["image"], arrays["labels"]
        affine = np.diag([2.0, 2.0, 5.0, 1.0])
        header = nib.Nifti1Image(image, affine).header
        decisions = (f"read as {self.part or 'the only part'}.",)
        return Scan(Volume(image, affine, header, entry.images[0]), Volume(labels, affine, header, entry.images[0]),
                    decisions, ("the ward is noisy.",))


@hookimpl
def attentkit_layouts():
    return {"ward": Ward, "second": __name__ + ":Second"}


class Second(Ward):
    """Recognises files of the ending .second."""

    @classmethod
    def recognises(cls, path):
        return (path / "second").exists()
'''


@pytest.fixture
def ward(tmp_path, install, found):
    """`ward(*cases, parts)` writes a ward of 3 x 4 x 2 voxels a case, with the plugin that reads it installed."""
    builtin = [point for point in entry_points(group="attentkit") if point.name == "builtin"]
    found([*builtin, *install("ward", STRANGER, version="0.3")])

    def write(*cases, parts=()):
        folder = tmp_path / "ward"
        folder.mkdir()
        for n, case in enumerate(cases):
            labels = np.zeros((3, 4, 2), np.uint8)
            labels[2, 1, :], labels[0, 1, :], labels[0, 0, 0], labels[1, 1, 1] = 7, 1, 2, 3
            image = np.arange(24, dtype=np.float32).reshape(3, 4, 2) + n
            with open(folder / case["file"], "wb") as file:
                np.savez(file, image=image, labels=labels)
        (folder / "cases.json").write_text(json.dumps({"cases": cases, "parts": list(parts)}))
        return folder

    return write


def prepared(attentkit, folder, out, *more):
    outcome = attentkit("prepare", folder, "--out", out, "--size", 4, *more)
    assert outcome.code == 0, outcome
    return Prepared.open(out), outcome


# A stranger's layout


def test_a_strangers_layout_is_recognised_read_and_named_in_the_manifest(attentkit, ward, tmp_path):
    folder = ward({"file": "b.ward", "id": "b", "modality": "mr"}, {"file": "a.ward", "id": "a", "modality": "mr"})
    domain, outcome = prepared(attentkit, folder, tmp_path / "mr.h5")
    assert domain.modality == domain.domain == "mr" and [case.id for case in domain.cases] == ["a", "b"]
    assert domain.manifest["layout"] == {"origin": "ward of attentkit-ward 0.3", "part": None}
    record = domain.manifest["cases"][0]
    assert record["decisions"] == ["read as the only part."] and record["doubts"] == ["the ward is noisy."]
    assert "Warning: a: the ward is noisy" in outcome.err
    # Task order by name; what is not of the task is background.
    assert domain.organs == ("liver", "left kidney", "spleen")
    assert record["labels"]["voxels"] == {"liver": 2, "left kidney": 1, "spleen": 2}
    assert domain.manifest["label_map"] == {
        "organs": {"liver": [7], "left kidney": [2], "spleen": [1]}, "others": "background",
    }  # fmt: skip
    assert quotes(outcome.out, "Organs liver=7,left kidney=2,spleen=1,*=0 ... Background: gall bladder=3")


def test_organs_and_modality_of_the_user_come_before_those_of_the_data_set(attentkit, ward, tmp_path):
    folder = ward(*({"file": f"{n}.ward", "id": f"c{n}", "modality": "mr"} for n in range(3)))
    domain, outcome = prepared(
        attentkit, folder, tmp_path / "x.h5", "--organs", "gall bladder=3,*=0", "--modality", "CT"
    )
    assert domain.organs == ("gall bladder",) and domain.modality == "ct"
    assert quotes(outcome.out, "Modality ct ... mr")


def test_of_two_modalities_one_is_asked_for_and_taken(attentkit, ward, tmp_path):
    folder = ward(*({"file": f"{m}{n}.ward", "id": f"{m}{n}", "modality": m} for m in ("ct", "mr") for n in range(3)))
    outcome = attentkit("prepare", folder, "--out", tmp_path / "x.h5", "--size", 4)
    assert says(outcome, 2, "ct and mr ... --modality ct")
    domain, _ = prepared(attentkit, folder, tmp_path / "x.h5", "--modality", "mr")
    assert [case.id for case in domain.cases] == ["mr0", "mr1", "mr2"]


def test_the_data_sets_own_split_counts_where_no_other_is_said(attentkit, ward, tmp_path):
    splits = ("train", "val", "test", "train", None)
    folder = ward(*({"file": f"{n}.ward", "id": f"c{n}", "modality": "ct", "split": s} for n, s in enumerate(splits)))
    domain, outcome = prepared(attentkit, folder, tmp_path / "x.h5")
    assert domain.manifest["splits"] == {"train": ["c0", "c3"], "val": ["c1"], "test": ["c2"]}
    assert domain.manifest["split_rule"] == "layout" and quotes(outcome.err, "no split ... c4")
    domain, _ = prepared(attentkit, folder, tmp_path / "x.h5", "--test", "c0,c4")
    assert domain.ids("test") == ("c0", "c4") and domain.ids("train") == ("c1", "c2", "c3")


def test_a_stranger_is_listed_and_shown_beside_the_built_ins(attentkit, ward):
    ward({"file": "a.ward"})
    listed = attentkit("list", "layouts").out
    assert "A ward: cases.json and one .ward a patient." in listed and "attentkit-ward 0.3" in listed
    shown = attentkit("show", "ward")
    assert shown.code == 0 and "chosen with: --layout ward" in shown.out and "spleen=1,kidney_left=2" in shown.out
    assert "about: Exported by our hospital." in shown.out and "option" not in shown.out
    assert "ward" in attentkit("plugins").out


@pytest.mark.parametrize("component", [c.name for c in load().registry.of("layouts")])
def test_every_layout_can_be_shown(attentkit, component):
    assert f"--layout {component}" in attentkit("show", component).out
    assert attentkit("show", component, "--json").code == 0


# Recognition


def test_several_layouts_that_recognise_a_place_are_listed_and_one_is_chosen_by_name(attentkit, ward, tmp_path):
    folder = ward({"file": "a.ward", "id": "a", "modality": "ct"})
    (folder / "second").touch()
    outcome = attentkit("prepare", folder, "--out", tmp_path / "x.h5")
    assert says(outcome, 2, "2 layouts ... --layout NAME ... \n  ward    A ward")
    assert "\n  second  Recognises" in outcome.err
    assert prepared(attentkit, folder, tmp_path / "x.h5", "--layout", "second")[0].ids("train") == ("a",)


def test_a_place_that_nothing_recognises_lists_all_layouts(attentkit, tmp_path):
    (tmp_path / "notes.txt").touch()
    outcome = attentkit("prepare", tmp_path, "--out", tmp_path / "x.h5")
    assert says(outcome, 2, f"no layout recognises {tmp_path}:", "--layout NAME", "\n  pairs ", "\n  nnunet ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt"]


def test_a_layout_that_is_not_there_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(UnknownComponent, match="'nnunett'.*'nnunet'"):
        open_layout(tmp_path, load().registry, "nnunett")


def test_several_parts_are_listed_and_one_is_chosen_whatever_its_capitals(attentkit, ward, tmp_path):
    folder = ward({"file": "a.ward", "id": "a", "modality": "mr"}, parts=("T1", "T2SPIR"))
    outcome = attentkit("prepare", folder, "--out", tmp_path / "x.h5")
    assert says(outcome, 2, "several data sets ... --part NAME: T1, T2SPIR")
    outcome = attentkit("prepare", folder, "--out", tmp_path / "x.h5", "--part", "T2SPR")
    assert says(outcome, 2, "'T2SPR' ... 'T2SPIR'? ... T1, T2SPIR")
    domain, _ = prepared(attentkit, folder, tmp_path / "x.h5", "--part", "t2spir")
    assert domain.manifest["layout"]["part"] == "T2SPIR"
    assert domain.manifest["cases"][0]["decisions"] == ["read as T2SPIR."]


def test_the_only_part_needs_no_choice_and_a_place_without_parts_has_none(attentkit, ward, tmp_path):
    folder = ward({"file": "a.ward", "id": "a", "modality": "mr"}, parts=("T1",))
    assert prepared(attentkit, folder, tmp_path / "x.h5")[0].manifest["layout"]["part"] == "T1"
    write_case(tmp_path / "ct", "a")
    with pytest.raises(ConfigError, match="'pairs' has none"):
        open_layout(tmp_path / "ct" / "images", load().registry, part="T1")


def test_labels_beside_a_layout_that_has_its_own_are_refused(attentkit, ward, tmp_path):
    folder = ward({"file": "a.ward", "id": "a", "modality": "mr"})
    for more in ([], ["--layout", "ward"]):
        outcome = attentkit("prepare", folder, "--labels", folder, "--out", tmp_path / "x.h5", *more)
        assert says(outcome, 2, "--labels ... leave it out")


def test_a_layout_that_fails_keeps_nobody_else_from_being_recognised(attentkit, install, found, volumes, tmp_path):
    source = (
        "from attent_kit import hookimpl\nfrom attent_kit.layouts import Layout\n\n"
        "class Bad(Layout):\n    '''Fails.'''\n"
        "    @classmethod\n    def recognises(cls, path): return 1 / 0\n"
        "    def entries(self): return 1 / 0\n    def read(self, entry): return 1 / 0\n\n"
        "@hookimpl\ndef attentkit_layouts(): return {'bad': Bad, 'gone': 'no_module_of_ours:X', 'none': int}\n"
    )
    found([point for point in entry_points(group="attentkit") if point.name == "builtin"] + install("bad", source))
    assert attentkit(*prepare_words(volumes / "ct", tmp_path / "ct.h5")).code == 0
    folder = volumes / "ct" / "images"
    outcome = attentkit("prepare", folder, "--layout", "bad", "--out", tmp_path / "x.h5", "--modality", "ct")
    assert says(outcome, 1, "layout bad of attentkit-bad 1.0", "ZeroDivisionError (division by zero)")
    outcome = attentkit("prepare", tmp_path / "site", "--out", tmp_path / "x.h5")
    assert outcome.code == 2 and "no layout recognises" in outcome.err
    for words in ("'bad' of attentkit-bad 1.0 failed with ZeroD", "'gone' of attentkit-bad 1.0 cannot be", "'none' of"):
        assert words in outcome.err


# Names and links that lead astray


@pytest.mark.parametrize("case", ["../../x", "a/b", "a\\b", "..", ".", "", "a\nb", "a\0b", "\udcff", "x" * 201])
def test_a_case_whose_name_would_lead_elsewhere_is_refused(attentkit, ward, tmp_path, case):
    folder = ward({"file": "a.ward", "id": case, "modality": "ct"})
    before = set(tmp_path.rglob("*"))
    outcome = attentkit("prepare", folder, "--out", tmp_path / "x.h5")
    assert says(outcome, 3, "cannot name a case ... letters, digits, '-' and '_'")
    new = set(tmp_path.rglob("*")) - before
    assert not [path for path in new if "__pycache__" not in path.parts]


def test_a_file_outside_of_the_data_set_is_read_and_told(attentkit, ward, tmp_path):
    folder = ward({"file": "a.ward", "id": "a", "modality": "ct"}, {"file": "b.ward", "id": "b", "modality": "ct"})
    (folder / "b.ward").rename(tmp_path / "elsewhere.ward")
    (folder / "b.ward").symlink_to(tmp_path / "elsewhere.ward")
    domain, outcome = prepared(attentkit, folder, tmp_path / "x.h5")
    assert quotes(outcome.err, "Warning: b: b.ward and 1 more ... outside")
    assert not any("outside" in doubt for doubt in domain.manifest["cases"][0]["doubts"])
    assert str(tmp_path) not in (tmp_path / "x.toml").read_text()


def test_what_leads_out_is_told_from_what_does_not(tmp_path):
    (tmp_path / "set").mkdir()
    for name in ("set/in", "out"):
        (tmp_path / name).touch()
    (tmp_path / "set" / "link").symlink_to(tmp_path / "out")
    (tmp_path / "set" / "loop").symlink_to(tmp_path / "set" / "in")
    (tmp_path / "mount").symlink_to(tmp_path / "set")
    root = tmp_path / "set"
    leads = {"in": False, "link": True, "loop": False, "../out": True}
    assert {name: leads_out(root / name, root) for name in leads} == leads
    assert not leads_out(tmp_path / "mount" / "in", tmp_path / "mount")  # the user named the link
    assert not leads_out(tmp_path / "out", root)  # and this file, with --labels


@pytest.mark.parametrize("target", ["/dev/zero", "/nowhere"])
def test_a_link_to_a_device_or_to_nothing_is_not_followed(attentkit, ward, tmp_path, target):
    folder = ward({"file": "a.ward", "id": "a", "modality": "ct"})
    (folder / "a.ward").unlink()
    (folder / "a.ward").symlink_to(target)
    outcome = attentkit("prepare", folder, "--out", tmp_path / "x.h5")
    assert says(outcome, 3, "is not a file" if target == "/dev/zero" else "does not exist")


def test_links_where_the_output_goes_are_replaced_and_not_written_through(volumes, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    (tmp_path / "ct.h5").symlink_to(tmp_path / "precious" / "file")
    (tmp_path / ".ct.h5.unfinished").symlink_to(tmp_path / "precious")
    pairs = [Pair("a", volumes / "ct" / "images" / "ct_1.nii.gz")]
    prepare(pairs, tmp_path / "ct.h5", PrepareOptions(modality="ct", size=8))
    assert [path.name for path in (tmp_path / "precious").iterdir()] == ["file"]
    assert (tmp_path / "precious" / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct.h5", "ct.toml", "precious"]
    assert Prepared.open(tmp_path / "ct.h5").ids("train") == ("a",)


def test_inputs_and_other_toml_files_are_never_written_over(volumes, tmp_path):
    write_case(tmp_path, "a")
    image = tmp_path / "images" / "a.nii.gz"
    (tmp_path / "mine.toml").write_text('name = "a suite"\n')
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for out, sentence in ((image, "which is an input"), (tmp_path / "mine.h5", "mine.toml exists and is not"),
                          (tmp_path / "x.toml", "name the prepared file")):  # fmt: skip
        with pytest.raises(ConfigError, match=sentence):
            prepare([("a", image, None)], out, PrepareOptions(modality="ct", size=8))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


# What a layout does wrong


class Wrong(PairList):
    """Answers of `read` that no layout should give."""

    answer = None

    def read(self, entry):
        return self.answer(super().read(entry))


def raised(error):
    def answer(scan):
        raise error

    return answer


def with_array(change):
    def answer(scan):
        changed = {name: getattr(scan, name) for name in change}
        return scan._replace(**{name: replace(v, array=change[name](v.array)) for name, v in changed.items()})

    return answer


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        (raised(KeyError("series")), RunError, r"case 'a' .*KeyError \('series'\).* author"),
        (raised(PermissionError(13, "Permission denied", "x")), DataError, r"^x .*\(Permission denied\)"),
        (raised(DataError("x is torn.")), DataError, "^x is torn.$"),
        (with_array({"image": lambda a: a[0]}), DataError, "image of case 'a' .* is not a volume"),
        (with_array({"image": lambda a: a * np.nan}), DataError, "not a volume of finite"),
        (with_array({"labels": lambda a: a[:-1]}), DataError, "labels of case 'a' .* on the grid of the image"),
        (with_array({"labels": lambda a: a * 0.5}), DataError, "labels of case 'a' .* not whole numbers"),
    ],
)
def test_an_answer_that_no_layout_should_give_is_one_sentence(volumes, tmp_path, answer, kind, sentence):
    pairs = [("a", volumes / "ct" / "images" / "ct_1.nii.gz", volumes / "ct" / "labels" / "ct_1.nii.gz")]
    layout = Wrong(pairs)
    layout.answer = answer
    with pytest.raises(AttentKitError, match=sentence) as error:
        prepare(layout, tmp_path / "x.h5", PrepareOptions(modality="ct", size=8))
    assert type(error.value) is kind and list(tmp_path.iterdir()) == []


def test_what_nobody_reads_is_called_by_its_kind(tmp_path):
    registry = load().registry
    (tmp_path / "data.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(ConfigError, match=r"data\.tar\.gz \(.*archive.*unpack"):
        open_layout(tmp_path / "data.tar.gz", registry)
    for name in ("images/a.MGZ", "images/b.mgz", "labels/a.nrrd"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).touch()
    with pytest.raises(ConfigError, match=r"set \(.*\.mgz and \.nrrd .*convert"):
        open_layout(tmp_path / "set", registry)
