"""What `prepare` does not write over, and what cannot name a domain."""

import json

import h5py
import pytest

from attent_kit.data.prepared.file import Prepared
from attent_kit.data.prepared.hdf5 import put_text
from attent_kit.errors import DataError
from support.commands import prepare_words, says, train_words
from support.messages import quotes


def hdf5_of_somebody(path, name="measurements"):
    with h5py.File(path, "w") as file:
        file[name] = [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("ct.h5", lambda path: path.write_text("my notes")),
        ("ct.h5", hdf5_of_somebody),
        ("ct.h5", lambda path: hdf5_of_somebody(path, "manifest")),
        ("photo.png", lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))),
    ],
)
def test_a_file_that_is_no_prepared_file_is_not_written_over(attentkit, volumes, tmp_path, name, write):
    write(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    outcome = attentkit(*prepare_words(volumes / "ct", tmp_path / name))
    assert says(outcome, 2, f"{name} exists already ... another --out")
    assert (tmp_path / name).read_bytes() == before and [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("left", [0, 10, 2000])
def test_an_empty_file_and_what_is_left_of_a_prepared_one_are_prepared_again(
    attentkit, volumes, prepared, tmp_path, left
):
    (tmp_path / "ct.h5").write_bytes((prepared / "ct.h5").read_bytes()[:left])
    assert attentkit(*prepare_words(volumes / "ct", tmp_path / "ct.h5")).code == 0
    assert (tmp_path / "ct.h5").read_bytes() == (prepared / "ct.h5").read_bytes()


@pytest.mark.parametrize("option", ["--domain", "--modality"])
@pytest.mark.parametrize("name", ["../../elsewhere", "a/b", ".."])
def test_what_cannot_name_a_folder_is_no_domain(attentkit, volumes, tmp_path, option, name):
    words = ["prepare", volumes / "ct", "-o", tmp_path / "x.h5", "--modality", "ct", option, name]
    assert says(attentkit(*words), 2, "cannot name a domain ... --domain mr")
    assert list(tmp_path.iterdir()) == []


def test_a_prepared_file_whose_domain_leads_out_of_the_runs_is_refused(attentkit, prepared, tmp_path, monkeypatch):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    for name in ("mr.h5", "ct.h5"):
        (inside / name).write_bytes((prepared / name).read_bytes())
    with h5py.File(inside / "mr.h5", "a") as file:
        manifest = json.loads(file["manifest"][()]) | {"domain": "../../elsewhere"}
        put_text(file, "manifest", json.dumps(manifest))
    with pytest.raises(DataError, match=r"'domain' is '\.\./\.\./elsewhere'.* `attentkit prep"):
        Prepared.open(inside / "mr.h5")
    monkeypatch.chdir(inside)
    words = [word for word in train_words(inside, inside) if word not in ("-o", str(inside))]
    assert attentkit(*words).code == 3
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["ct.h5", "mr.h5"]


def test_a_split_without_a_test_case_says_what_to_type(attentkit, volumes, tmp_path):
    words = [word for word in prepare_words(volumes / "ct", tmp_path / "ct.h5") if not word.startswith("--test")]
    outcome = attentkit(*words)
    assert outcome.code == 0 and quotes(outcome.err, "--test ... --fold")
