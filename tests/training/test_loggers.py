"""What each logger keeps is read back, by the library itself where it can; nothing leaves this machine."""

import csv
import json
import struct

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,  # pyright: ignore[reportAttributeAccessIssue]
)

from zsteer.app import checks
from zsteer.app.composition import compose

FACES = ("data.num_train=32", "data.num_val=16", "data.num_test=16", "max_images=32", "data.batch_size=16")
QUICK = (*FACES, "trainer=cpu", "trainer.precision=32-true", "+trainer.enable_progress_bar=false")
SMALL = ("classifier.network.hidden_dim=4", "trainer.log_every_n_steps=1", "trainer.val_check_interval=1.0")
CLASSIFIER = (*QUICK, *SMALL)
STEER = ("num_steps=2", "num_images=2", "judge=none", "trainer=cpu", "method=ascent")
BLOCK, HEADER = 32768, 7  # of W&B's files, which are logs as LevelDB has them


@pytest.fixture
def run(command, tmp_path_factory):
    """Run a command that has to succeed; its folder and figures."""

    def call(name, *words):
        data = [] if name == "steer" else [f"data.root={tmp_path_factory.getbasetemp() / 'logged'}"]
        ended = command(name, *words, *data)
        assert ended.code == 0, ended.err
        return ended.folder, json.loads((ended.folder / "metrics.json").read_text()), ended

    return call


def rows_of(folder):
    (path,) = folder.glob("csv/*/metrics.csv")
    with path.open() as file:
        return list(csv.DictReader(file))


def values(rows, name):
    return [float(row[name]) for row in rows if row.get(name)]


def events_of(folder):
    return EventAccumulator(str(folder)).Reload()


def test_csv_and_tensorboard_have_the_same_of_a_training(run):
    folder, figures, _ = run("train_classifier", *CLASSIFIER, "logger=[tensorboard,csv]")
    rows, events = rows_of(folder), events_of(folder)
    for tag, number in {"train/loss": 2, "train/lr": 2, "val/loss": 1, "val/accuracy": 1, "test/loss": 1}.items():
        logged = [event.value for event in events.Scalars(tag)]
        assert len(logged) == number
        assert values(rows, tag) == pytest.approx(logged, rel=1e-6)
    assert values(rows, "figure/test_accuracy") == pytest.approx([figures["test_accuracy"]])
    settings = yaml.safe_load(next(folder.glob("csv/*/hparams.yaml")).read_text())
    assert settings["training"]["optimizer"]["lr"] == settings["training"]["max_lr"] == 2e-3


def test_a_trainings_row_among_tensorboards_hparams(run):
    folder, figures, _ = run("train_classifier", *CLASSIFIER)
    content = events_of(folder).SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    row = HParamsPluginData.FromString(content).session_start_info.hparams
    assert row["training/max_lr"].number_value == 2e-3
    assert row["classifier/network/hidden_dim"].number_value == 4
    assert events_of(folder).Scalars("figure/test_accuracy")[0].value == pytest.approx(figures["test_accuracy"])


def test_steering_logs_its_scalars_to_others_too(run):
    folder, figures, _ = run("steer", *STEER, "logger=[csv,tensorboard]")
    rows, events = rows_of(folder), events_of(folder)
    for tag, number in {"steer/score": 2, "steer/target_logit": 3, "steer/other_change": 3}.items():
        logged = [event.value for event in events.Scalars(tag)]
        assert len(logged) == number
        assert values(rows, tag) == pytest.approx(logged, rel=1e-6)
    assert values(rows, "figure/gain_classifier") == pytest.approx([figures["gain_classifier"]])


def test_no_logger_leaves_no_log(run):
    folder, _, _ = run("steer", *STEER, "logger=none")
    assert not list(folder.glob("events*"))
    assert (folder / "metrics.json").is_file()


def test_the_jobs_of_a_sweep_are_logged_each_in_its_folder(command):
    ended = command("steer", "penalty_weight=0,1", *STEER, "logger=csv", sweep=True)
    assert ended.code == 0, ended.err
    folders = [path.parent for path in sorted(ended.folder.glob("*/metrics.json"))]
    assert len(folders) == 2
    for folder in folders:
        figures = json.loads((folder / "metrics.json").read_text())
        assert values(rows_of(folder), "figure/gain_classifier") == pytest.approx([figures["gain_classifier"]])
        assert not list(folder.glob("events*"))


def test_mlflow_keeps_a_run_in_a_local_store(run, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    folder, figures, _ = run("steer", *STEER, "logger=mlflow")
    client = MlflowClient(f"file:{folder}/mlruns")
    experiment = client.get_experiment_by_name("zsteer")
    assert experiment is not None
    (logged,) = client.search_runs([experiment.experiment_id])
    assert (logged.info.run_name, logged.info.status) == (folder.name, "FINISHED")
    assert logged.data.params["target"] == "Smiling"
    assert logged.data.metrics["figure/gain_classifier"] == pytest.approx(figures["gain_classifier"])
    assert [metric.step for metric in client.get_metric_history(logged.info.run_id, "steer/score")] == [0, 1]


def records_of(path):
    """The records of a file of W&B's: those of a log of LevelDB, behind seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]

    data, place, parts = path.read_bytes(), HEADER, b""
    assert data[:4] == b":W&B"
    while place < len(data):
        if BLOCK - place % BLOCK < HEADER:  # too little is left of the block
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        parts += data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def test_wandb_keeps_a_run_offline(run, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder, figures, ended = run("steer", *STEER, "logger=wandb", "logger.wandb.offline=true")
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    records = list(records_of(path))
    history = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    assert [row["trainer/global_step"] for row in history if "steer/score" in row] == [0, 1]
    (gain,) = [row["figure/gain_classifier"] for row in history if "figure/gain_classifier" in row]
    assert gain == pytest.approx(figures["gain_classifier"])
    (named,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert (named.project, named.display_name) == ("zsteer", folder.name)
    assert [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"] == [0]
    assert "wandb:" not in ended.out + ended.err


OWN = """
from pytorch_lightning.loggers import CSVLogger

class Mine(CSVLogger):
    pass
"""


def test_ones_own_logger_is_a_file_of_yaml(run, tmp_path, monkeypatch):
    (tmp_path / "my_logger.py").write_text(OWN)
    (tmp_path / "configs" / "logger").mkdir(parents=True)
    section = "mine:\n  _target_: my_logger.Mine\n  save_dir: ${run_folder}\n  name: csv\n"
    (tmp_path / "configs" / "logger" / "mine.yaml").write_text(section)
    monkeypatch.syspath_prepend(tmp_path)
    folder, _, _ = run("steer", "--config-dir", str(tmp_path / "configs"), *STEER, "logger=mine")
    assert len(values(rows_of(folder), "steer/score")) == 2


@pytest.mark.parametrize(
    ("script", "word", "extra"),
    [
        ("steer", "logger=wandb", "wandb"),
        ("train_gan", "logger=[csv,mlflow]", "mlflow"),
        ("train_gan", "callbacks=rich_progress", "rich"),
    ],
)
def test_what_is_not_installed_is_named_with_what_installs_it(script, word, extra, monkeypatch):
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    group = word.partition("=")[0]
    with pytest.raises(ValueError, match=rf"{group}\.\w+ needs {extra}: pip install 'zsteer\[{extra}\]'"):
        getattr(checks, script)(compose(script, [word]))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("+logger.mine=5", "logger.mine=5 has no _target_, its class"),
        ("+logger.mine={_target_:torch.nn.Identity}", "logger.mine"),
        ("+logger.mine={_target_:pytorch_lightning.loggers.CSVLogger}", "logger.mine"),
    ],
)
def test_what_is_no_logger_is_refused(command, word, said):
    ended = command("steer", *STEER, word)
    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith(f"error: {said}")
    assert "Traceback" not in ended.err
