"""One input under watch: how it ended, and whether anything happened that must not.

An input may end in a clean run or in a YoloKDError of one line. Everything else is an escape: another exception, a traceback
printed by a thread, a process started or a module asked for by a pickle, a file changed, left behind or half-written.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz.mutate import MARK
from yolo_kd.errors import YoloKDError

OUT = "out"  # below the sandbox: where commands may write
LONGEST = 2000  # characters of a message that anybody reads
State = dict[str, tuple[int, int, int]]
_STARTS = {"os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "subprocess.Popen", "pty.spawn"}
_CALLS_OUT = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname"}


class Reached(BaseException):
    """Raised by a stand-in for what takes minutes: the input was taken, and the work would begin."""


@dataclass(frozen=True)
class Outcome:
    """How an input ended.

    Args:
        word: "clean", "line" or "escape".
        what: The line, or what escaped.
    """

    word: str
    what: str = ""


class Sandbox:
    """A folder of good files, one of which is bad at a time.

    Args:
        pristine: The good files; copied, never touched.
        folder: Where to work; becomes the current folder during a trial.
    """

    def __init__(self, pristine: Path, folder: Path) -> None:
        self.pristine, self.folder = pristine, folder
        shutil.copytree(pristine, folder)
        self.temporary = folder.with_name(folder.name + "-tmp")
        self.temporary.mkdir(exist_ok=True)

    def trial(
        self,
        act: Callable[[], Any],
        place: str = "",
        content: bytes | None = None,
        resumable: bool = False,
        rewrites: Collection[str] = (),
        anywhere: bool = False,
    ) -> Outcome:
        """Put `content` in its place, act, look, and put everything back.

        Args:
            act: What reads the input; the current folder is the sandbox.
            place: The file that is replaced.
            content: What it holds now.
            resumable: Whether a refused act may leave whole files in `out`, because the same command goes on there.
            rewrites: Files that the act is asked to write, or to write anew.
            anywhere: Whether new files may lie outside of `out`, because a command line may ask for that.
        """
        if content is not None:
            (self.folder / place).write_bytes(content)
        before = _state(self.folder)
        with _watched(self.folder, self.temporary) as seen:
            outcome = _outcome(act)
        try:
            return seen.verdict() or self._files(before, outcome, resumable, rewrites, anywhere) or outcome
        finally:
            self._mend(before, place)

    def _files(
        self, before: State, outcome: Outcome, resumable: bool, rewrites: Collection[str], anywhere: bool
    ) -> Outcome | None:
        """What is wrong with the files after a trial, if anything."""
        after = _state(self.folder)
        if (self.folder / MARK).exists():
            return Outcome("escape", "executed what the input holds")
        changed = sorted(name for name in before if after.get(name) != before[name] and name not in rewrites)
        if changed:
            return Outcome("escape", f"changed or removed {changed[0]} after: {outcome.what or outcome.word}")
        fresh = sorted(after.keys() - before.keys() - set(rewrites))
        unfinished = [name for name in fresh if name.endswith((".part", ".old", ".tmp")) or "/." in f"/{name}"]
        stray = [name for name in fresh if not name.startswith(f"{OUT}/") and not anywhere]
        left = fresh if outcome.word == "line" and not resumable else []
        for kind, names in (
            ("half-written", unfinished),
            ("outside of out/", stray),
            ("left by a refused input", left),
        ):
            if names:
                return Outcome("escape", f"{kind}: {names[0]} after: {outcome.what or outcome.word}")
        temporary = sorted(p.name for p in self.temporary.iterdir() if not p.name.startswith("torchinductor"))
        return Outcome("escape", f"left in the temporary folder: {temporary[0]}") if temporary else None

    def _mend(self, before: State, place: str) -> None:
        after = _state(self.folder)
        for name in after.keys() - before.keys():
            (self.folder / name).unlink()
        for folder in sorted((p for p in self.folder.rglob("*") if p.is_dir() and not p.is_symlink()), reverse=True):
            if not (self.pristine / folder.relative_to(self.folder)).is_dir():
                shutil.rmtree(folder)
        for name in {n for n in before if after.get(n) != before[n]} | ({place} if place else set()):
            source, target = self.pristine / name, self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_file():
                shutil.copyfile(source, target)
            else:
                target.unlink(missing_ok=True)
        for left in self.temporary.iterdir():
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()


def _outcome(act: Callable[[], Any]) -> Outcome:
    try:
        act()
    except Reached:
        return Outcome("clean", "reached the work")
    except YoloKDError as error:
        line = str(error)
        if not line.isprintable() or len(line) > LONGEST or not line:
            return Outcome("escape", f"no single printable line of up to {LONGEST} characters: {line[:200]!r}")
        return Outcome("line", f"{error.exit_code} {line}")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Outcome("escape", f"{type(error).__name__}: {' '.join(str(error).split())[:200]} ({_place(error)})")
    return Outcome("clean")


def _place(error: BaseException) -> str:
    """The innermost line of ours, and the innermost of all."""
    frames = traceback.extract_tb(error.__traceback__)
    shown = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames]
    ours = [s for s, f in zip(shown, frames) if "site-packages" not in f.filename and "/fuzz/" not in f.filename]
    return f"{ours[-1] if ours else '?'} -> {shown[-1] if shown else '?'}"


@dataclass
class Seen:
    """What went on beside the act itself."""

    folder: Path
    begun: list[str]
    printed: io.StringIO
    cwd: Path | None = None
    loading: tuple[Any, Any] = (None, None)

    def verdict(self) -> Outcome | None:
        """The first thing that must not be, if any."""
        if self.begun:
            return Outcome("escape", f"tried to start {self.begun[0]}")
        if "Traceback (most recent call last)" in self.printed.getvalue():
            last = self.printed.getvalue().strip().splitlines()[-1]
            return Outcome("escape", f"a traceback was printed: {last[:200]}")
        if self.cwd != self.folder.resolve():
            return Outcome("escape", f"the current folder was changed to {self.cwd}")
        if self.loading[0] != self.loading[1]:
            return Outcome("escape", f"how checkpoints are loaded was changed: {self.loading}")
        return None


_NOW: list[Seen] = []  # the trial that is going on; the audit hook cannot be taken away again


@contextlib.contextmanager
def _watched(folder: Path, temporary: Path) -> Iterator[Seen]:
    """Inside: the current folder is the sandbox, prints are kept, processes and connections are refused."""
    _install()
    seen, here, before = Seen(folder, [], io.StringIO()), Path.cwd(), tempfile.tempdir
    state = _loading()
    os.chdir(folder)
    tempfile.tempdir = str(temporary)
    _NOW.append(seen)
    try:
        with contextlib.redirect_stdout(seen.printed), contextlib.redirect_stderr(seen.printed):
            yield seen
    finally:
        _NOW.pop()
        seen.cwd, seen.loading = Path.cwd(), (state, _loading())
        os.chdir(here)
        tempfile.tempdir = before


def _loading() -> tuple[Any, Any]:
    """Whether Ultralytics loads checkpoints without running their code."""
    tasks = sys.modules.get("ultralytics.nn.tasks")
    return os.environ.get("ULTRALYTICS_SAFE_LOAD"), getattr(tasks, "SAFE_LOAD", False)


def _install() -> None:
    if not _INSTALLED:
        platform.processor()  # asks a program of the system once, and keeps the answer
        _INSTALLED.append(True)
        sys.addaudithook(_hook)


_INSTALLED: list[bool] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _NOW:
        return
    if event in _STARTS:
        _NOW[-1].begun.append(f"{event} {str(arguments)[:200]}")
        raise PermissionError(f"{event} during a trial")
    if event in _CALLS_OUT:
        raise ConnectionError("no network during a trial")


def _state(folder: Path) -> State:
    """Size, time and number of every file."""
    found: State = {}
    waiting = [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    facts = entry.stat(follow_symlinks=False)
                    found[os.path.relpath(entry.path, folder)] = (facts.st_size, facts.st_mtime_ns, facts.st_ino)
    return found
