"""What a shell is offered for a command line that is begun, through Hydra's own entry for completion."""

import sys

import pytest
from hydra.plugins.completion_plugin import CompletionPlugin

from zsteer.app import commands


@pytest.mark.parametrize(
    ("script", "typed", "offered"),
    [
        ("steer", "target=Smi", ["target=Smiling"]),
        ("steer", "target=hair", ["target=hair_length"]),
        ("steer", "-m num_steps=3 target=Smiling,Wearing_H", ["target=Smiling,Wearing_Hat"]),
        ("steer", "preserve=[Male,You", ["preserve=[Male,Young"]),
        ("steer", "where={Eyeg", ["where={Eyeglasses"]),
        ("compare", "targets=[Bangs,Gr", ["targets=[Bangs,Gray_Hair"]),
        ("steer", "classifier.attributes=[one,two] ~classifier.regressor target=", ["target=one", "target=two"]),
        ("steer", "target=Smiling method=be", ["method=best_of"]),
        ("steer", "num_im", ["num_images="]),
        ("train_gan", "gan_loss=h", ["gan_loss=hinge"]),
    ],
)
def test_tab_completes_attributes_keys_and_choices(script, typed, offered, monkeypatch, capsys):
    monkeypatch.setattr(CompletionPlugin, "_query", CompletionPlugin._query)  # so that it is put back
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "-sc", "query=bash"])
    monkeypatch.setenv("COMP_LINE", f"python {script}.py {typed}")
    getattr(commands, script)()
    assert capsys.readouterr().out.split() == offered
