"""What is handed on: archives that anybody can make again, and the licences of what comes with them."""

import re
import subprocess
import sys
import tarfile
import tomllib
from importlib.metadata import metadata

from places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def build(folder, out, *targets):
    words = [word for target in targets for word in ("-t", target)]
    subprocess.run([sys.executable, "-m", "hatchling", "build", *words, "-d", out], cwd=folder, check=True)


def test_the_source_makes_the_same_wheel_wherever_it_is_built(tmp_path):
    build(ROOT, tmp_path / "one", "sdist", "wheel")
    (source,) = (tmp_path / "one").glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (folder,) = (tmp_path / "source").iterdir()
    build(folder, tmp_path / "two", "sdist", "wheel")
    for again in (tmp_path / "two").iterdir():
        assert again.read_bytes() == (tmp_path / "one" / again.name).read_bytes(), again.name
    assert len(list((tmp_path / "two").iterdir())) == 2


def test_every_dependency_stands_under_its_licence():
    page = (ROOT / "docs/reference/security.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", page[page.index("## Licences") :], re.MULTILINE)
    listed = {name: licence for licence, names in rows[1:] for name in re.findall(r"[a-z][\w-]+", names)}
    wanted = [*PROJECT["dependencies"], *(word for part in PROJECT["optional-dependencies"].values() for word in part)]
    assert set(listed) == set(re.findall(r"^[\w-]+", "\n".join(wanted), re.MULTILINE)) - {"zsteer"}
    for name, licence in listed.items():
        about = metadata(name).json
        said = [about.get("license_expression", ""), about.get("license", ""), *about.get("classifier", [])]
        assert any(licence in text for text in said if "License" in text or "::" not in text), name
