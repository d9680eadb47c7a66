"""JSON of any size, entry by entry: the same as json.load whatever the size of a chunk, and faults with their line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from yolo_kd.data.converters import json_stream
from yolo_kd.data.converters.json_stream import entries

from yolo_kd.errors import MisuseError

CONTENT = {
    "info": {"a": [1, 2, {"b": "]}"}]},
    "images": [{"id": 1, "file_name": 'ä"\\.jpg'}, {"id": 22, "size": 1234567}],
    "empty": [],
    "numbers": [12, 345.5, -6e7, True, None, "x,y", [1, [2]]],
    "last": 98765,
}


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_the_same_as_read_at_once(tmp_path: Path, monkeypatch, chunk: int, indent: int | None) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(CONTENT, indent=indent, ensure_ascii=False), encoding="utf-8")
    found: dict = {}
    for key, number, line, entry in entries(path):
        if number < 0:
            assert entry == (None if isinstance(CONTENT[key], list) else CONTENT[key])
            found[key] = [] if entry is None else entry
        else:
            assert number == len(found[key])
            found[key].append(entry)
        if isinstance(entry, dict) and "id" in entry and indent:
            assert path.read_text(encoding="utf-8").splitlines()[line - 1].strip() == "{"
    assert found == CONTENT


def test_a_file_that_is_one_list(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"name": 1},\n {"name": 2}\n]\n')
    assert list(entries(path)) == [("", 0, 1, {"name": 1}), ("", 1, 2, {"name": 2})]
    path.write_text("[]")
    assert list(entries(path)) == []


def test_only_a_part_is_held_in_memory(tmp_path: Path) -> None:
    """40 MB of entries within a few MB."""
    import tracemalloc

    path = tmp_path / "a.json"
    with path.open("w") as file:
        file.write('{"annotations": [')
        file.write(",".join(json.dumps({"id": i, "x": "y" * 1000}) for i in range(40_000)))
        file.write("]}")
    tracemalloc.start()
    assert sum(number >= 0 for _, number, _, _ in entries(path)) == 40_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16e6


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "found 'the end of the file'"),
        ("words", 1, "[ or {"),
        ('{"a": [1,\n2,\n}', 3, "a value"),
        ('{"a": [{"b": 1}\n {"b": 2}]}', 2, ", or ]"),
        ('{"a" 1}', 1, ":"),
        ("{a: 1}", 1, "a key in quotes"),
        ('{"a": [1, 2]', 1, ", or }"),
        ("[1]\n[2]", 2, "the end"),
        ("[" * 100_000, 1, "less depth"),
    ],
)
def test_a_fault_is_one_line_with_file_and_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(MisuseError) as caught:
        list(entries(path))
    assert str(caught.value).startswith(f"{path}:{line}: no JSON") and said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_text_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"a": "\xff\xfe"}')
    for name, said in (("a.json", "no UTF-8 text"), ("b.json", "No such file")):
        with pytest.raises(MisuseError, match=f"{name}:1: cannot be read .*{said}"):
            list(entries(tmp_path / name))
