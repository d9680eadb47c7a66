"""A data.yaml of a stranger whose `download:` is code: refused in a line, unless it is trusted or came with the packages."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from yolo_kd.data.description import find_description

from tests.conftest import NAMES
from yolo_kd.cli import main
from yolo_kd.engine import foreign_code, ultra
from yolo_kd.errors import MisuseError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Its pictures are not there, and its code leaves a mark."""
    path = tmp_path / "data.yaml"
    code = f"from pathlib import Path\nPath({str(tmp_path / 'executed')!r}).touch()\n"
    path.write_text(yaml.safe_dump({"train": "a", "val": "b", "names": list(NAMES), "download": code}))
    return path


@pytest.mark.parametrize("shell", [False, True])
def test_training_and_validation_do_not_run_it(
    data: Path, make_checkpoint, tiny, tmp_path: Path, capsys, shell
) -> None:
    if shell:
        found = yaml.safe_load(data.read_text())
        data.write_text(yaml.safe_dump({**found, "download": f"bash -c touch${{IFS}}{tmp_path}/executed"}))
    model = make_checkpoint(str(tiny))
    runs = f"project={tmp_path / 'runs'}"
    for words in (["train", "distill=none", f"student={tiny}"], ["val", f"model={model}"]):
        assert (
            main(
                [
                    *words,
                    f"data={data}",
                    "imgsz=64",
                    "epochs=1",
                    "check_data=false" if words[0] == "train" else runs,
                    runs,
                ]
            )
            == 2
        )
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert "download: is code of its own, which is not run" in said and (shell or str(data) in said)
    assert not (tmp_path / "executed").exists()


def test_trusted_it_is_run(data: Path, tiny, tmp_path: Path) -> None:
    words = [
        "train",
        "distill=none",
        f"student={tiny}",
        f"data={data}",
        "imgsz=64",
        "trust=true",
        f"project={tmp_path}",
    ]
    assert main(words) != 0, "the pictures are still not there"
    assert (tmp_path / "executed").exists()


def test_what_came_along_is_run_wherever_the_user_copied_it(tmp_path: Path, monkeypatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr("ultralytics.utils.downloads.download", lambda url, **_: fetched.append(str(url)))
    monkeypatch.setattr("ultralytics.utils.downloads.safe_download", lambda *_, **__: None)
    code = yaml.safe_load(find_description("voc.yaml").read_text())["download"]
    with foreign_code.no_foreign_code(False), pytest.raises(MisuseError, match="VOCdevkit: no such folder"):
        ultra.data_scan.exec(code, {"yaml": {"path": tmp_path}})
    assert fetched and "VOC" in fetched[0]
    assert "exec" not in vars(ultra.data_scan)
