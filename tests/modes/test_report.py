"""`yolo-kd report`: where the page goes, and what is refused."""

from __future__ import annotations

import pytest

from tests.evidence.sample_run import write_run
from yolo_kd.cli import main


def test_the_page_goes_into_the_runs_folder_or_where_out_says(tmp_path, capsys):
    folder = write_run(tmp_path / "train")
    assert main(["report", f"run={folder}"]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert "mAP50-95 0.2000" in (folder / "report.html").read_text()
    (tmp_path / "pages").mkdir()
    assert main(["report", str(folder), f"out={tmp_path / 'pages'}"]) == 0, "the run may be the first word"
    assert main(["report", f"run={folder}", f"out={tmp_path / 'a.html'}"]) == 0
    assert (tmp_path / "pages" / "report.html").read_text() == (tmp_path / "a.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "run= is missing"),
        (["run=nowhere"], "no results.csv there"),
        (["run=x", "otu=y"], "otu=y: unknown key (did you mean 'out'?)"),
    ],
)
def test_mistakes_are_one_line_and_exit_two(words, said, capsys):
    assert main(["report", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_only_a_page_of_ours_is_replaced(tmp_path, capsys):
    folder = write_run(tmp_path / "train")
    (data := tmp_path / "data.yaml").write_text("names: {0: car}")
    assert main(["report", f"run={folder}", f"out={data}"]) == 2
    assert "data.yaml: exists and was not written by this command" in capsys.readouterr().err
    assert data.read_text() == "names: {0: car}"
    assert main(["report", f"run={folder}"]) == main(["report", f"run={folder}"]) == 0


def test_help_names_every_key(capsys):
    assert main(["report", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "run=" in printed and "out=" in printed
