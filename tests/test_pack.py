"""A run in one zip: it predicts as the run does, tells nothing of the machine, and no other zip is taken for one."""

import hashlib
import json
import stat
import zipfile

import nibabel as nib
import numpy as np
import pytest

from attent_kit.engine.apply.model import open_model
from attent_kit.engine.apply.pack import LARGEST, MANIFEST, WEIGHTS, read_pack
from attent_kit.engine.apply.packing import PackOptions, pack_run
from attent_kit.errors import ConfigError, RunError
from support.commands import says, train_words
from support.stand_in import REGISTRY, greys, predict, save, whole_run

SMALL = [
    "--set=translate_steps=1", "--set=translator.width=4", "--set=translator.blocks=1", "--set=image_discriminator.width=4",
    "--set=image_discriminator.layers=1",
]  # fmt: skip


@pytest.fixture
def pack(tmp_path):
    """Of the stand-in, without its translator, which `predict` does not call."""
    pack_run(whole_run(tmp_path / "run", 12), tmp_path / "run.zip", REGISTRY, PackOptions("CC-BY-4.0"))
    return tmp_path / "run.zip"


def entries(path):
    with zipfile.ZipFile(path) as file:
        return {entry.filename: file.read(entry) for entry in file.infolist()}


def test_a_pack_holds_what_predict_needs_and_no_place_of_this_machine(pack, tmp_path):
    found = entries(pack)
    assert found.keys() == LARGEST.keys()
    manifest = json.loads(found[MANIFEST])
    assert (manifest["licence"], manifest["networks"]) == ("CC-BY-4.0", ["S"])
    for name, said in manifest["files"].items():
        assert said == {"sha256": hashlib.sha256(found[name]).hexdigest(), "bytes": len(found[name])}
    for name, content in found.items():
        assert str(tmp_path).encode() not in content and b"/somewhere" not in content, name
    card = json.loads(found["card.json"])
    assert card["licence"] == "CC-BY-4.0" and card["labels"] == {"background": 0, "middle": 1, "bright": 2}


def test_the_same_run_makes_the_same_bytes(pack, tmp_path):
    pack_run(tmp_path / "run", tmp_path / "again.zip", REGISTRY, PackOptions("CC-BY-4.0"))
    assert pack.read_bytes() == (tmp_path / "again.zip").read_bytes()


def test_a_pack_predicts_as_its_run_does(pack, tmp_path):
    image = save(tmp_path / "image.nii.gz", greys(), np.eye(4))
    predict(tmp_path / "run", image, tmp_path / "a.nii.gz", maps=["probabilities"])
    predict(pack, image, tmp_path / "b.nii.gz", maps=["probabilities"])
    for end in (".nii.gz", "_probabilities.nii.gz"):
        assert (tmp_path / f"a{end}").read_bytes() == (tmp_path / f"b{end}").read_bytes()
    a, b = (json.loads((tmp_path / f"{name}.json").read_text())["run"] for name in "ab")
    assert (a["licence"], b["licence"], b["folder"]) == (None, "CC-BY-4.0", "run.zip")
    assert b["weights"] == {"name": WEIGHTS, "sha256": read_pack(pack).sha256(WEIGHTS)}
    assert a["steps"] == b["steps"] == 7


def test_a_pack_says_what_it_lacks(pack, tmp_path):
    opened = open_model(pack, REGISTRY, "cpu")
    assert opened.predict(greys(), np.eye(4)).labels.shape == greys().shape
    with pytest.raises(ConfigError, match=r"run.zip .* G_ts"):
        opened.translate(greys(), np.eye(4))
    with pytest.raises(ConfigError, match="is a pack already"):
        pack_run(pack, tmp_path / "b.zip", REGISTRY)


@pytest.mark.parametrize("name, networks", [("source_only", ["S"]), ("pixel", ["G_ts", "S"])])
def test_a_trained_run_is_packed_and_predicts_from_the_command_line(
    attentkit, prepared, volumes, tmp_path, name, networks
):
    run, image = tmp_path / "run", volumes / "ct/images/ct_3.nii.gz"
    more = SMALL if name == "pixel" else []
    assert attentkit(*train_words(prepared, run, *more, alignment=name)).code == 0
    outcome = attentkit("pack", run, tmp_path / "run.zip", "--licence", "CC0-1.0", "--json")
    assert outcome.code == 0 and sorted(json.loads(outcome.out)["networks"]) == networks
    assert str(prepared).encode() not in b"".join(entries(tmp_path / "run.zip").values())
    assert attentkit("predict", tmp_path / "run.zip", image, tmp_path / "p.nii.gz", "-d", "cpu").code == 0
    kept = nib.load(run / "predictions" / "ct_3.nii.gz")
    assert np.array_equal(nib.load(tmp_path / "p.nii.gz").dataobj, kept.dataobj)
    assert says(attentkit("pack", run, tmp_path / "run.zip"), 2, "run.zip exists already")
    assert says(attentkit("pack", run, tmp_path / "run.tar"), 2, "ends in .zip")
    words = ["predict", tmp_path / "run.zip", image, tmp_path / "q.nii.gz", "--select", "entropy"]
    assert says(attentkit(*words), 2, "no snapshots")


# Other zips


def rewritten(path, change=lambda name, content: content, more=(), kinds=None, sign=False):
    """The zip again with its files changed; with `sign`, and checksums that fit."""
    found = {name: change(name, content) for name, content in entries(path).items()}
    found = {name: content for name, content in found.items() if content is not None}
    if sign:
        manifest = json.loads(found[MANIFEST])
        manifest["files"] = {n: {"sha256": hashlib.sha256(c).hexdigest()} for n, c in found.items() if n != MANIFEST}
        found[MANIFEST] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, content in [*found.items(), *more]:
            entry = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
            file.writestr(entry, content, compress_type=(kinds or {}).get(entry.filename, zipfile.ZIP_STORED))


def link(name):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


def flipped(name, content, wanted=WEIGHTS):
    return content[:-4] + bytes([content[-4] ^ 1]) + content[-3:] if name == wanted else content


def of(wanted, made):
    return lambda name, content: made if name == wanted else content


def declared(path, size):
    """The zip with another size of its config.toml in its directory and in its header."""
    with zipfile.ZipFile(path) as file:
        entry = file.getinfo("config.toml")
    content = bytearray(path.read_bytes())
    for place in (entry.header_offset + 22, content.index(b"config.toml", content.index(b"PK\x01\x02")) - 46 + 24):
        content[place : place + 4] = size.to_bytes(4, "little")
    path.write_bytes(content)


SPOILT = {
    "leads out": (lambda p: rewritten(p, more=[("../evil.txt", b"x")]), "leads out of the folder"),
    "leads out in the manner of Windows": (lambda p: rewritten(p, more=[("a\\..\\..\\evil", b"")]), "leads out of"),
    "absolute": (lambda p: rewritten(p, more=[("/tmp/evil.txt", b"x")]), "absolute path"),
    "a drive": (lambda p: rewritten(p, more=[("C:evil.txt", b"x")]), "absolute path"),
    "a link": (lambda p: rewritten(p, of("card.json", None), more=[(link("card.json"), b"/etc/passwd")]), "link"),
    "something else": (lambda p: rewritten(p, more=[("setup.py", b"x")]), "'setup.py'"),
    "twice": (lambda p: rewritten(p, more=[("card.json", b"x")]), "'card.json' twice"),
    "a file less": (lambda p: rewritten(p, of("domain.json", None)), "lacks domain.json"),
    "a bomb": (
        lambda p: rewritten(p, of("card.json", bytes(2**23)), kinds={"card.json": zipfile.ZIP_DEFLATED}, sign=True),
        "8388608 bytes",
    ),
    "compressed weights": (lambda p: rewritten(p, kinds={WEIGHTS: zipfile.ZIP_DEFLATED}), "compressed"),
    "larger than declared": (lambda p: declared(p, 10), "damaged"),
    "a flipped weight": (lambda p: rewritten(p, flipped), f"checksum of {WEIGHTS}"),
    "a flipped weight with a checksum that fits": (lambda p: rewritten(p, flipped, sign=True), "does not match|match its digest"),
    "another domain": (lambda p: rewritten(p, of("domain.json", b"{}")), "checksum of domain.json"),
    "a domain that is none": (lambda p: rewritten(p, of("domain.json", b"{}"), sign=True), "domain.json is missing or damaged"),
    "a configuration that is none": (lambda p: rewritten(p, of("config.toml", b"= ="), sign=True), "config.toml"),
    "another method": (
        lambda p: rewritten(p, lambda n, c: c.replace(b"seed = 3", b"seed = 4") if n == "config.toml" else c, sign=True),
        "two runs",
    ),
    "no text": (lambda p: rewritten(p, of("config.toml", b"\xff\xfe"), sign=True), "config.toml is not text"),
    "no manifest": (lambda p: rewritten(p, of(MANIFEST, b"[1]")), "does not describe a pack"),
    "a deep manifest": (lambda p: rewritten(p, of(MANIFEST, b"[" * 10**5)), "does not describe a pack"),
    "cut off": (lambda p: p.write_bytes(p.read_bytes()[:-200]), "not a whole zip"),
    "junk": (lambda p: p.write_bytes(b"junk" * 99), "not a whole zip"),
    "empty": (lambda p: p.write_bytes(b""), "not a whole zip"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPOILT)
def test_what_is_not_a_whole_pack_is_refused_in_a_sentence_and_nothing_is_unpacked(pack, tmp_path, kind):
    spoil, words = SPOILT[kind]
    spoil(pack)
    image = save(tmp_path / "in" / "image.nii.gz", greys(), np.eye(4))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match=words) as refused:
        predict(pack, image, tmp_path / "l.nii.gz")
    assert "run.zip" in str(refused.value) and "\n" not in str(refused.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_pack_of_a_later_version_says_what_to_type(pack):
    def later(name, content):
        return json.dumps(json.loads(content) | {"version": 2}).encode() if name == MANIFEST else content

    rewritten(pack, later)
    with pytest.raises(RunError, match="version 2, .* pip install --upgrade attent-kit"):
        read_pack(pack)


def test_a_bit_anywhere_is_noticed_or_changes_nothing(pack):
    whole, original = read_pack(pack).files, pack.read_bytes()
    rng = np.random.default_rng(4)
    refused = 0
    for offset in rng.integers(0, len(original), 60):
        content = bytearray(original)
        content[offset] ^= 1 << int(rng.integers(8))
        pack.write_bytes(content)
        try:
            assert read_pack(pack).files == whole
        except RunError:
            refused += 1
    assert refused > 30
