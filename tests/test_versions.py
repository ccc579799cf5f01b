"""What CI runs on: the choice of Pythons and JAX versions, on machines made of small scripts."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ["bash", "sh", "sort", "dirname", "mkdir", "tee", "grep", "tail"]


def works(path: Path, version: str) -> Path:
    """A Python that says its version when it is asked for it."""
    return script(path, f"[ $1 = -c ] && echo {version}")


def script(path: Path, line: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bin(tmp_path: Path) -> Path:
    """A path without any Python."""
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    return tmp_path / "bin"


def ask(bin: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env={"PATH": str(bin)}, cwd=ROOT, capture_output=True, text=True, check=False
    )


def runs(bin: Path) -> list[str]:
    return ask(bin, "bash", ".ci/run", "-n").stdout.splitlines()


def test_the_ends_get_all_tests_and_the_middle_the_quick_ones(bin: Path) -> None:
    for version in ("3.13", "3.11", "3.12"):
        works(bin / f"python{version}", version)
    works(bin / "python3", "3.12")
    assert runs(bin) == [
        "make test PYTHON=python3.11 JAX=0.10.0",
        "make quick PYTHON=python3.12 JAX=0.11.2",
        "make test PYTHON=python3.13",
    ]


def test_two_pythons_are_the_two_ends(bin: Path) -> None:
    works(bin / "python3.12", "3.12")
    works(bin / "python3", "3.11")
    assert runs(bin) == [
        "make test PYTHON=python3 JAX=0.10.0",
        "make test PYTHON=python3.12",
    ]


def test_one_python_is_tested_alone_with_the_newest_jax(bin: Path) -> None:
    works(bin / "python3", "3.11")
    works(bin / "python3.14", "3.14")
    assert runs(bin) == ["make test PYTHON=python3"]


def test_a_name_that_pyenv_only_knows_is_looked_up_there(bin: Path, tmp_path: Path) -> None:
    script(bin / "pyenv", f'[ "$1" = root ] && echo {tmp_path}/pyenv')
    for version in ("3.11", "3.13"):
        script(bin / f"python{version}", "echo pyenv: command not found; exit 127")
        works(
            tmp_path / "pyenv" / "versions" / f"{version}.5" / "bin" / f"python{version}", version
        )
    works(bin / "python3.12", "3.12")
    found = ask(bin, "sh", ".ci/pythons", "python3.13", "python3.12", "python3.11").stdout
    assert found.splitlines() == [
        f"3.13 {tmp_path}/pyenv/versions/3.13.5/bin/python3.13",
        "3.12 python3.12",
        f"3.11 {tmp_path}/pyenv/versions/3.11.5/bin/python3.11",
    ]


def test_a_python_that_is_not_tested_is_refused_by_name(bin: Path) -> None:
    works(bin / "python3.14", "3.14")
    script(bin / "python3.12", "exit 1")  # Debian's without python3-venv
    refused = ask(bin, "sh", ".ci/pythons", "python3.14", "python3.12")
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert "3.11 3.12 3.13" in refused.stderr
    assert "got none under these names: python3.14 python3.12" in refused.stderr
    assert ask(bin, "bash", ".ci/run", "-n").returncode == 1


def test_a_pair_that_fails_is_named_and_the_others_run(bin: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")  # its log is its own
    for version in ("3.11", "3.12", "3.13"):
        works(bin / f"python{version}", version)
    script(
        bin / "make",
        """
        echo "JAX 0.$#"
        echo "===== 5 passed in 1.00s ====="
        case "$*" in "quick PYTHON=python3.12 "*) echo "make: *** Error 1"; exit 2 ;; esac
        """,
    )
    done = ask(bin, "bash", str(tmp_path / ".ci" / "run"), "ARGS=-x")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-11:] == [
        "passed: make test PYTHON=python3.11 JAX=0.10.0",
        "JAX 0.4",
        "===== 5 passed in 1.00s =====",
        "",
        "FAILED: make quick PYTHON=python3.12 JAX=0.11.2",
        "JAX 0.4",
        "===== 5 passed in 1.00s =====",
        "",
        "passed: make test PYTHON=python3.13",
        "JAX 0.3",
        "===== 5 passed in 1.00s =====",
    ]
    script(bin / "make", 'echo "===== 5 passed in 61.00s (0:01:01) ====="')
    assert ask(bin, "bash", str(tmp_path / ".ci" / "run")).returncode == 0


def test_what_is_tested_is_what_the_package_promises() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    said = re.search(r'^TESTED="(.*)"$', (ROOT / ".ci/pythons").read_text("utf-8"), re.MULTILINE)
    assert said is not None
    tested = said.group(1).split()
    prefix = "Programming Language :: Python :: 3."
    classified = [line for line in project["classifiers"] if line.startswith(prefix)]
    assert classified == [f"Programming Language :: Python :: {version}" for version in tested]
    first, last = tested[0], int(tested[-1].partition(".")[2])
    assert project["requires-python"] == f">={first},<3.{last + 1}"
    oldest = re.search(r"^OLDEST=(\S+)", (ROOT / ".ci/run").read_text("utf-8"), re.MULTILINE)
    assert oldest is not None
    assert f"jax>={oldest.group(1).removesuffix('.0')}" in project["dependencies"]
