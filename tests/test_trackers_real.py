"""The trackers that ship, each against its own package, with no network: skipped where the package is not installed."""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from attent_kit.plugins import load
from attent_kit.tracker import TrackedRun
from support.commands import train_words

# What wandb, mlflow and their libraries warn of is theirs to mend.
pytestmark = pytest.mark.filterwarnings("default")

CONFIG = {"seed": 3, "alignment": {"name": "attent", "cycle": 10.0, "segmentor": {"name": "smp"}}}


@pytest.fixture(autouse=True)
def no_settings_of_somebody_else(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)


@pytest.fixture(params=["tensorboard", "wandb", "mlflow"])
def name(request):
    pytest.importorskip(request.param, reason=f"pip install 'attent-kit[{request.param}]' to test this tracker")
    return request.param


def tracker(name):
    return load().registry.tracker(name)()


@contextmanager
def calls():
    """A proxy that answers nobody, as environment variables, and who asked it."""
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen():
            try:
                while True:
                    connection, _ = server.accept()
                    asked.append(connection.recv(200))
                    connection.close()
            except OSError:
                pass

        threading.Thread(target=listen, daemon=True).start()
        proxy = f"http://127.0.0.1:{server.getsockname()[1]}"
        yield {key: proxy for key in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY")}, asked
        server.shutdown(socket.SHUT_RDWR)


def written(name, folder):
    """(values by metric as (step, value), parameters, names of files) that the package itself reads back."""
    return {"tensorboard": in_tensorboard, "wandb": in_wandb, "mlflow": in_mlflow}[name](folder)


def in_tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    metrics = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    texts = {
        tag: "".join(e.tensor_proto.string_val[0].decode() for e in events.Tensors(tag))
        for tag in events.Tags()["tensors"]
        if tag.endswith("text_summary")
    }
    names = [line.rsplit("/", 1)[-1] for line in texts.get("files/text_summary", "").split()]
    return metrics, texts["config/text_summary"], names


def in_wandb(folder):
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # Its own process writes the files, and may be a moment behind `finish`.
    metrics, final, config, ids = {}, {}, {}, set()
    for file in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for data in leveldb_records(file.read_bytes()[7:], first=7):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            logged, summary = (
                {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
                for items in (record.history.item, record.summary.update)
            )
            for key, value in logged.items():
                metrics.setdefault(key, []).append((logged["step"], value))
            final |= summary
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            ids |= {record.run.run_id} - {""}
    assert len(ids) == 1, "several processes, one run"
    files = {path.name for path in folder.glob("wandb/offline-run-*/files/*")}
    return {**{key: [(None, value)] for key, value in final.items()}, **metrics}, str(config), sorted(files)


def leveldb_records(data, first, block=32768):
    """Records of a log of LevelDB, whose format W&B's files have after a head of `first` bytes: in each block CRC, length, kind
    (1 whole, 2 first, 3 middle, 4 last) and so many bytes; what is left of a block is padding."""
    at, parts = 0, []
    while at + 7 <= len(data):
        left = block - (at + first) % block
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts.append(data[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):
            yield b"".join(parts)
            parts = []


def in_mlflow(folder):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("attent-kit").experiment_id])
    metrics = {
        key: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)] for key in run.data.metrics
    }
    return metrics, str(run.data.params), [file.path for file in client.list_artifacts(run.info.run_id)]


def values_of(metrics, key):
    return sorted({value for _, value in metrics[key]})


def test_a_run_reaches_its_tracker_and_nobody_else(name, prepared, tmp_path):
    """All of it in a process of its own, whose every way to the network leads to a proxy that nobody asks."""
    command = [sys.executable, "-c", "from attent_kit.cli import main; main()"]
    with calls() as (proxies, asked):
        environment = {**os.environ, **proxies, "NO_PROXY": "", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
        words = [*command, *train_words(prepared, tmp_path / "run", "--track", name)]
        outcome = subprocess.run(words, capture_output=True, text=True, timeout=240, env=environment, cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    assert "switched off" not in outcome.stderr and asked == []
    metrics, config, files = written(name, tmp_path / "run")
    assert [step for step, _ in metrics["segment/L_seg"]] == [1, 2, 3]
    assert "source_only" in config and "tu-test_resnet" in config
    assert "dice/liver" in metrics and 0 <= metrics["dice/liver"][0][1] <= 1
    assert {"config.toml", "monitor.json", "scores.csv"} <= set(files)
    assert {path.name for path in tmp_path.iterdir()} <= {"run", ".config", ".cache", ".local"}


def test_a_run_that_goes_on_is_appended(name, tmp_path):
    """Stopped after step 4, whose checkpoint was that of step 2."""
    (tmp_path / "config.toml").write_text("seed = 3\n")
    run = TrackedRun("mr2ct/AttENT/seed3", tmp_path, tmp_path, CONFIG, 0, None)
    first = tracker(name)
    known = first.start(run)
    for step in (2, 4):
        first.log(step, {"segment/L_seg": step / 8})
    first.end(None, ())
    if name == "wandb":
        time.sleep(1.1)  # It names the folder of an offline run by the second, and would write over the first one.
    second = tracker(name)
    assert second.start(run._replace(step=2, id=known)) == known
    second.log(4, {"segment/L_seg": 0.25})
    second.log(6, {"segment/L_seg": 0.125})
    second.end({"dice/liver": 0.75}, [tmp_path / "config.toml"])
    metrics, config, files = written(name, tmp_path)
    # TensorBoard takes back what is trained again.
    again = [(4, 0.25)] if name == "tensorboard" else [(4, 0.5), (4, 0.25)]
    assert metrics["segment/L_seg"] == [(2, 0.25), *again, (6, 0.125)]
    assert values_of(metrics, "dice/liver") == [0.75]
    assert "config.toml" in files and "10.0" in config


def test_two_runs_of_one_process_do_not_mix(name, tmp_path):
    """As in a comparison, one after the other."""
    for seed in (0, 1):
        folder = tmp_path / f"seed{seed}"
        folder.mkdir()
        one = tracker(name)
        one.start(TrackedRun(f"mr2ct/AttENT/seed{seed}", folder, folder, {"seed": seed}, 0, None))
        one.log(1, {"segment/L_seg": seed + 1.0})
        one.end({}, ())
    for seed in (0, 1):
        metrics, _, _ = written(name, tmp_path / f"seed{seed}")
        assert values_of(metrics, "segment/L_seg") == [seed + 1.0]


def test_mlflow_has_all_runs_of_a_comparison_in_one_store_and_starts_anew_where_it_is_gone(tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="pip install 'attent-kit[mlflow]' to test this tracker")
    ids = []
    for seed in (0, 1):
        one = tracker("mlflow")
        ids.append(one.start(TrackedRun(f"seed{seed}", tmp_path / f"seed{seed}", tmp_path, {"seed": seed}, 0, None)))
        one.end({}, ())
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("attent-kit")
    assert {run.info.run_id for run in client.search_runs([experiment.experiment_id])} == set(ids)
    other = tracker("mlflow")
    (tmp_path / "elsewhere").mkdir()
    assert other.start(TrackedRun("seed0", tmp_path, tmp_path / "elsewhere", {}, 2, ids[0])) not in ids


def test_mlflow_takes_more_options_than_fit_into_one_request(tmp_path):
    pytest.importorskip("mlflow", reason="pip install 'attent-kit[mlflow]' to test this tracker")
    one = tracker("mlflow")
    one.start(TrackedRun("many", tmp_path, tmp_path, {"a": {str(n): n for n in range(250)}}, 0, None))
    one.end({}, ())
    assert "'a.249': '249'" in in_mlflow(tmp_path)[1]
