"""Zips made wrong on purpose: checkpoints whose pickle asks for code to be run, bundles that lie about what they hold."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import random
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from tests.fuzz.mutate import MARK, mutate_bytes, mutate_json, mutate_text, mutate_yaml

# A net with fitting hashes is run by OpenVINO, whose own code is not safe against a hostile one: signatures are for that.
NET = (".xml", ".bin")
CODE = f"open('{MARK}', 'w')"
# What a pickle may ask for: module, name, argument. Each would leave the mark, start a process, or fetch something.
CALLS: tuple[tuple[str, str, Any], ...] = (
    ("os", "system", f"touch {MARK}"),
    ("posix", "system", f"touch {MARK}"),
    ("subprocess", "getoutput", f"touch {MARK}"),
    ("subprocess", "Popen", ["touch", MARK]),
    ("builtins", "eval", CODE),
    ("builtins", "exec", CODE),
    ("__builtin__", "eval", CODE),
    ("builtins", "__import__", "antigravity"),
    ("cProfile", "run", CODE),
    ("pdb", "run", CODE),
    ("code", "InteractiveInterpreter.runsource", CODE),
    ("pathlib", "Path.touch", MARK),
    ("importlib", "import_module", "this"),
    ("runpy", "run_path", MARK),
    ("pickle", "loads", f"cos\nsystem\n(S'touch {MARK}'\ntR.".encode()),
    ("torch", "load", MARK),
    ("torch.hub", "load", "a/b"),
    ("torch.jit", "load", MARK),
    ("torch.serialization", "add_safe_globals", []),
    ("torch.utils.cpp_extension", "load", MARK),
    ("ultralytics.utils.checks", "check_requirements", MARK),
    ("ultralytics.utils.downloads", "safe_download", "http://localhost/x"),
    ("ultralytics.nn.tasks", "torch_safe_load", MARK),
    ("ultralytics.nn.tasks", "attempt_load_one_weight", MARK),
    ("ultralytics.nn.tasks", "sys.modules", MARK),
    ("ultralytics.utils.patches", "torch_load", MARK),
    ("yolo_kd.cli", "main", ["version"]),
    ("a_module_that_is_not_installed", "thing", MARK),
)


def bomb(rng: random.Random) -> bytes:
    """A pickle, without its end, that leaves the result of a call on the stack."""
    module, name, argument = rng.choice(CALLS)
    given = pickle.dumps((argument,), protocol=rng.choice((0, 2, 4)))
    given = given[2:-1] if given[:1] == b"\x80" else given[:-1]
    if given[:1] == b"\x95":
        given = given[9:]  # a frame's length, which does not fit any more
    kind = rng.randrange(4)
    if kind == 0:
        return f"c{module}\n{name}\n".encode() + given + b"R"
    if kind == 1:
        words = b"".join(b"\x8c" + struct.pack("<B", len(w)) + w.encode() for w in (module, name))
        return words + b"\x93" + given + b"R"
    if kind == 2:  # an object that gets its state by a call
        return f"c{module}\n{name}\n".encode() + given + b"\x81"
    return b"(" + (f"S'{argument}'\n".encode() if isinstance(argument, str) else b"N") + f"i{module}\n{name}\n".encode()


def with_bomb(data: bytes, rng: random.Random) -> bytes:
    """A checkpoint whose pickle runs code before, after or in place of what it held; or a bare pickle of old."""
    call, kind = bomb(rng), rng.randrange(6)
    if kind == 0:
        return b"\x80\x02" + call + b"."
    if kind == 1:
        return call + b"."

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("data.pkl"):
            return content
        if kind == 2:
            return b"\x80\x02" + call + b"."
        if kind == 3:
            return b"\x80\x02" + call + b"0" + content[2:]
        return content[:-1] + call + (b"0." if kind == 4 else b".")

    return rewritten(data, change)


def mutate_checkpoint(data: bytes, rng: random.Random) -> bytes:
    """A checkpoint that asks for code to be run, whose pickle is damaged in an archive that is not, or with damaged bytes."""
    kind = rng.randrange(4)
    if kind < 2:
        return with_bomb(data, rng)
    if kind == 2:
        return rewritten(data, lambda name, content: mutate_bytes(content, rng) if name.endswith(".pkl") else content)
    return mutate_bytes(data, rng)


def mutate_zip(data: bytes, rng: random.Random) -> bytes:
    """A bundle with other bytes, other contents with fitting hashes, or entries that have no business in it."""
    kind = rng.randrange(4)
    if kind == 0:
        return mutate_bytes(data, rng)
    entries = _entries(data)
    names = [info.filename for info, _ in entries]
    chosen = rng.choice(names)
    if kind == 1:  # contents
        entries = [(info, _content(chosen, body, rng) if info.filename == chosen else body) for info, body in entries]
        if rng.random() < 0.8 and not chosen.endswith(NET):
            entries = rehashed(entries)
    elif kind == 2:  # names and kinds of entry
        at = names.index(chosen)
        info, body = entries[at]
        entries[at] = (_odd(info, rng), body)
    else:
        extra = zipfile.ZipInfo(
            rng.choice(("evil.py", "artifact/evil.pt", "references/99.png", chosen, "artifact", "x/" * 300 + "y"))
        )
        entries.insert(rng.randrange(len(entries) + 1), (extra, rng.choice((b"", b"x", bytes(3 << 20)))))
        if rng.random() < 0.5:
            entries = rehashed(entries)
        if rng.random() < 0.3:
            entries = [entry for entry in entries if entry[0].filename != rng.choice(names)]
    return _packed(entries)


def rewritten(data: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    """The zip with the content of its entries changed and every checksum right."""
    return _packed([(info, change(info.filename, body)) for info, body in _entries(data)])


def rehashed(entries: list[tuple[zipfile.ZipInfo, bytes]]) -> list[tuple[zipfile.ZipInfo, bytes]]:
    """The entries of a bundle with the hashes in both manifests made to fit; as they are where a manifest is no JSON."""
    bodies = {info.filename: body for info, body in entries}
    for manifest, top in (("artifact/artifact.json", "artifact/"), ("bundle.json", "")):
        try:
            plain = json.loads(bodies[manifest])
            plain["files"] = {
                name.removeprefix(top): hashlib.sha256(body).hexdigest()
                for name, body in bodies.items()
                if name.startswith(top) and name != manifest
            }
            bodies[manifest] = json.dumps(plain).encode()
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return [(info, bodies[info.filename]) for info, _ in entries]


def _content(name: str, body: bytes, rng: random.Random) -> bytes:
    kinds = {".json": mutate_json, ".yaml": mutate_yaml, ".xml": mutate_text, ".md": mutate_text}
    return kinds.get(PurePosixPath(name).suffix, mutate_bytes)(body, rng)


def _odd(info: zipfile.ZipInfo, rng: random.Random) -> zipfile.ZipInfo:
    odd = zipfile.ZipInfo(info.filename, info.date_time)
    odd.external_attr = info.external_attr
    kind = rng.randrange(4)
    if kind == 0:
        odd.filename = rng.choice(
            ("../" + MARK, "/" + MARK, "a/../../" + MARK, "C:\\x", "a\\..\\b", "./x", "x//y", "", ".", "bundle.json/x", "a" * 5000,
             "BUNDLE.JSON", "x\n", "ä", "con", info.filename + "/", info.filename.upper())
        )  # fmt: skip
    elif kind == 1:
        odd.external_attr = rng.choice((stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR)) << 16
    elif kind == 2:
        odd.compress_type = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    else:
        odd.date_time = (2107, 12, 31, 23, 59, 58)
    return odd


def _entries(data: bytes) -> list[tuple[zipfile.ZipInfo, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info, archive.read(info)) for info in archive.infolist()]


def _packed(entries: list[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for info, body in entries:
            fresh = zipfile.ZipInfo(info.filename, info.date_time)
            fresh.external_attr, fresh.compress_type = info.external_attr, info.compress_type
            archive.writestr(fresh, body)
    return packed.getvalue()
