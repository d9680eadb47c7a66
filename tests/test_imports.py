"""Who may import whom: the layers of the project, read from the source, and what loads without torch, tried out."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Imports go to a smaller number, or stay in the same layer; api, modes and cli form one layer.
RANK = {"errors": 0, "cfg": 1, "pictures": 2, "deploy": 3, "data": 3, "distillers": 4, "engine": 5, "evidence": 6}
RANK |= dict.fromkeys(["api", "modes", "cli", "__main__"], 7)
TOP = 7

FOLDERS = {"yolo_kd": "yolo_kd", "cfg": "yolo_kd.cfg", "data": "yolo_kd.data", "deploy": "yolo_kd.deploy"}
ULTRA = "yolo_kd/engine/ultra.py"
# Layers that never see torch, and those that may use it inside a function only.
NO_TORCH, TORCH_LATE = {"deploy", "pictures", "errors"}, {"yolo_kd", "cfg", "data"}


@dataclass(frozen=True)
class Import:
    """One imported module; `at_load` is False inside functions and under TYPE_CHECKING."""

    module: str
    line: int
    at_load: bool


def imports_of(source: str, package: str) -> Iterator[Import]:
    """All imports of a file, relative ones resolved against `package`, `import_module("...")` included."""

    def visit(node: ast.AST, at_load: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, at_load) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names] if module in ("yolo_kd", "*") else [module]
            yield from (Import(name, node.lineno, at_load) for name in names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("import_module", "__import__"):
                yield Import(str(node.args[0].value), node.lineno, at_load)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.body:
                yield from visit(child, False)
            for child in node.orelse:
                yield from visit(child, at_load)
            return
        inside = at_load and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    return visit(ast.parse(source), True)


def layer_of(module: str) -> str | None:
    """The layer of one of our modules; "yolo_kd" for the root itself, None for foreign modules."""
    parts = module.split(".")
    if parts[0] != "yolo_kd":
        return None
    if len(parts) == 1 or (parts[1].startswith("__") and parts[1] != "__main__"):
        return "yolo_kd"
    # The public names of yolo_kd/__init__.py, such as `from yolo_kd import distill`, stand for the top layer.
    return parts[1] if parts[1] in RANK or len(parts) > 2 else "api"


def faults(own: str, path: str, found: Import) -> Iterator[str]:
    """What is wrong with one import of a file of layer `own`."""
    first, target = found.module.split(".")[0], layer_of(found.module)
    if first in FOLDERS and first != "yolo_kd":
        yield f"import yolo_kd.{first}, not {first}"
    if target in RANK and own in RANK:
        upward = RANK[target] > RANK[own] or (RANK[target] == RANK[own] != TOP and target != own)
        if upward:
            yield f"{own} may not import {target}"
        elif own == "distillers" and target not in ("distillers", "errors"):
            yield f"distillers may not import {target}, only errors"
    if own == "yolo_kd" and found.at_load and (target or first not in sys.stdlib_module_names):
        yield f"yolo_kd/__init__.py may not load {found.module}"
    if own == "distillers" and not target and first != "torch" and first not in sys.stdlib_module_names:
        yield f"distillers may not import {first}, only torch"
    if first in ("torch", "torchvision") and (own in NO_TORCH or (own in TORCH_LATE and found.at_load)):
        yield f"{own} may not import {first}"
    if first == "ultralytics" and path != ULTRA:
        yield f"only {ULTRA} may import ultralytics"


def violations(root: Path) -> list[str]:
    """Every import that breaks the rules, as `path:line: what is wrong`."""
    found = []
    for folder, package in FOLDERS.items():
        for file in sorted((root / folder).rglob("*.py")):
            inner = list(file.relative_to(root / folder).with_suffix("").parts)
            module = ".".join([package, *inner]).removesuffix(".__init__")
            own = module.split(".")[1] if "." in module else "yolo_kd"
            path = file.relative_to(root).as_posix()
            if own not in RANK and own != "yolo_kd":
                found.append(f"{path}:1: {own} has no place in the layers; give it one in RANK")
                continue
            parent = module if file.name == "__init__.py" else module.rpartition(".")[0]
            for each in imports_of(file.read_text(encoding="utf-8"), parent):
                found += [f"{path}:{each.line}: {fault}" for fault in faults(own, path, each)]
    for folder in ("tests", "benchmarks"):
        for file in sorted((root / folder).rglob("*.py")):
            for each in imports_of(file.read_text(encoding="utf-8"), folder):
                first = each.module.split(".")[0]
                if first in FOLDERS and first != "yolo_kd":
                    found.append(
                        f"{file.relative_to(root).as_posix()}:{each.line}: import yolo_kd.{first}, not {first}"
                    )
    return found


def test_the_layers_are_kept() -> None:
    assert violations(ROOT) == []


def test_the_checker_sees_the_whole_project() -> None:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    assert ROOT / "yolo_kd/errors.py" in files and ROOT / "deploy/__init__.py" in files


def plant(root: Path, path: str, source: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source, encoding="utf-8")


LAWFUL = {
    "yolo_kd/__init__.py": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from yolo_kd.engine.trainer import T\n"
        "def __getattr__(name):\n    from importlib import import_module\n    return import_module(name)\n"
    ),
    "yolo_kd/errors.py": "import difflib\n",
    "yolo_kd/distillers/pkd.py": "import torch\nfrom yolo_kd.errors import E\nfrom .base import D\n",
    "yolo_kd/engine/ultra.py": "from ultralytics import YOLO\n",
    "yolo_kd/engine/trainer.py": "from yolo_kd import __version__\nfrom .ultra import YOLO\nimport yolo_kd.cfg\n",
    "yolo_kd/modes/train.py": "from yolo_kd.api import distill\nfrom ..engine.trainer import T\n",
    "yolo_kd/api.py": "import torch\nfrom .modes import train\n",
    "yolo_kd/cli.py": "from yolo_kd.modes import train\n",
    "yolo_kd/pictures/reading.py": "import numpy\nfrom yolo_kd.errors import E\n",
    "cfg/settings.py": "import yaml\nfrom yolo_kd.errors import E\n",
    "data/check.py": "import numpy\nfrom yolo_kd.cfg import settings\nfrom yolo_kd.pictures import reading\ndef f():\n    import torch\n",
    "deploy/backends/ov.py": "from ..decode import d\ndef f():\n    import openvino\n",
    "tests/test_x.py": "from yolo_kd.cfg import settings\n",
}


def test_a_lawful_tree_has_no_violation(tmp_path: Path) -> None:
    for path, source in LAWFUL.items():
        plant(tmp_path, path, source)
    assert violations(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        ("yolo_kd/errors.py", "from yolo_kd.cfg import x", "errors may not import cfg"),
        ("yolo_kd/errors.py", "import torch", "errors may not import torch"),
        ("cfg/a.py", "import yolo_kd.deploy", "cfg may not import deploy"),
        ("cfg/a.py", "import torch", "cfg may not import torch"),
        ("deploy/a.py", "from yolo_kd.data import x", "deploy may not import data"),
        ("deploy/a.py", "from yolo_kd import data", "deploy may not import data"),
        ("deploy/sub/a.py", "from ...data import x", "deploy may not import data"),
        ("deploy/a.py", "def f():\n    import torch.nn", "deploy may not import torch"),
        ("deploy/a.py", "def f():\n    from yolo_kd import distill", "deploy may not import api"),
        ("data/a.py", "from yolo_kd.deploy.nms import nms", "data may not import deploy"),
        ("yolo_kd/pictures/a.py", "from yolo_kd.data import split", "pictures may not import data"),
        ("yolo_kd/pictures/a.py", "def f():\n    import torch", "pictures may not import torch"),
        ("data/a.py", "class A:\n    import torch", "data may not import torch"),
        ("data/a.py", "try:\n    import torchvision\nexcept ImportError: pass", "data may not import torchvision"),
        ("yolo_kd/distillers/a.py", "from yolo_kd.engine import heads", "distillers may not import engine"),
        ("yolo_kd/distillers/a.py", "from yolo_kd.cfg import x", "distillers may not import cfg, only errors"),
        ("yolo_kd/distillers/a.py", "import numpy", "distillers may not import numpy, only torch"),
        ("yolo_kd/distillers/a.py", "from ..engine import heads", "distillers may not import engine"),
        ("yolo_kd/engine/a.py", "from yolo_kd.evidence import x", "engine may not import evidence"),
        ("yolo_kd/engine/a.py", "from yolo_kd.modes import train", "engine may not import modes"),
        ("yolo_kd/engine/a.py", "def f():\n    import ultralytics.nn", "may import ultralytics"),
        ("yolo_kd/engine/a.py", "import_module('yolo_kd.cli')", "engine may not import cli"),
        ("yolo_kd/evidence/a.py", "import yolo_kd.cli", "evidence may not import cli"),
        ("yolo_kd/modes/a.py", "from ultralytics import YOLO", "may import ultralytics"),
        ("yolo_kd/api.py", "def f():\n    from ultralytics import YOLO", "may import ultralytics"),
        ("yolo_kd/cli.py", "if TYPE_CHECKING:\n    from ultralytics import YOLO", "may import ultralytics"),
        ("yolo_kd/__init__.py", "from yolo_kd.api import distill", "may not load yolo_kd.api"),
        ("yolo_kd/__init__.py", "import numpy", "may not load numpy"),
        ("yolo_kd/engine/a.py", "from cfg import settings", "import yolo_kd.cfg, not cfg"),
        ("tests/a.py", "import deploy.nms", "import yolo_kd.deploy, not deploy"),
        ("yolo_kd/novel.py", "", "novel has no place in the layers"),
    ],
)
def test_a_forbidden_import_is_named(tmp_path: Path, path: str, source: str, message: str) -> None:
    plant(tmp_path, path, source)
    found = violations(tmp_path)
    assert len(found) == 1, found
    assert found[0].startswith(f"{path}:") and message in found[0]


# What only the extras install; a device has none of it.
EXTRAS = "torch torchvision ultralytics openvino nncf onnxruntime onnx albumentations pycocotools matplotlib polars"
LOAD_ALL = """
import importlib, pkgutil, sys
blocked = set(sys.argv[1].split())
class Blocker:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, Blocker)
package = importlib.import_module(sys.argv[2])
for found in pkgutil.walk_packages(getattr(package, "__path__", []), sys.argv[2] + "."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
        print(found.name)
assert not blocked & set(sys.modules)
"""


def load_without(extras: str, package: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LOAD_ALL, extras, package]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("package", ["yolo_kd.deploy", "yolo_kd.cfg", "yolo_kd.data", "yolo_kd.pictures"])
def test_every_module_loads_with_the_base_install_alone(package: str, tmp_path: Path) -> None:
    answer = load_without(EXTRAS, package, tmp_path)
    assert answer.returncode == 0, answer.stderr
    inner = package.rpartition(".")[2]
    folder = ROOT / inner if (ROOT / inner).is_dir() else ROOT / "yolo_kd" / inner
    expected = {path for path in folder.rglob("*.py") if path.name not in ("__init__.py", "__main__.py")}
    assert len(answer.stdout.splitlines()) >= len(expected)


def test_the_blocker_blocks(tmp_path: Path) -> None:
    answer = load_without("numpy", "numpy", tmp_path)
    assert answer.returncode != 0 and "numpy is not installed here" in answer.stderr
