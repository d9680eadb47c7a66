"""Writes docs/results.md from docs/results/*.json: `python -m benchmarks.render`, or `make results`.

Why a bar is missed and what was tried is written by hand, in docs/results/shortfalls.yaml: benchmark, bar, text.
"""

from __future__ import annotations

from pathlib import Path

from yolo_kd.cfg.documents import read_mapping

from benchmarks.result import RESULTS, Result, load
from yolo_kd.errors import MisuseError
from yolo_kd.evidence.table import markdown, number

PAGE = RESULTS.parent / "results.md"
SHORTFALLS = "shortfalls.yaml"
UNKNOWN = "not known yet."

_HEAD = """# Results

This page is written by `make results` from the files in [results/](results/); do not edit it by hand.
Every table names the machine it was measured on and the command that repeats it.
"""


def render(folder: Path = RESULTS) -> str:
    """The page as Markdown; the same files always give the same text.

    Args:
        folder: Holds NAME.json, NAME*.png where a benchmark draws plots, and shortfalls.yaml.

    Raises:
        MisuseError: A file is no result, or shortfalls.yaml explains what does not fall short.
    """
    results = [load(path) for path in sorted(folder.glob("*.json"))]
    if not results:
        return f"{_HEAD}\nNo benchmark has been recorded yet.\n"
    plots = _plots(folder, [result.benchmark for result in results])
    reasons = _reasons(folder, results)
    parts = [_HEAD, *_overview(results)]
    for result in results:
        pictures = [f"{folder.name}/{plot}" for plot in plots[result.benchmark]]
        parts += _section(result, pictures, reasons.get(result.benchmark, {}))
    return "\n".join(parts)


def main() -> int:
    """Write the page."""
    PAGE.write_text(render(), encoding="utf-8")
    print(f"wrote docs/{PAGE.name}")
    return 0


def _overview(results: list[Result]) -> list[str]:
    """All bars of all benchmarks, those that fall short in bold."""
    bars = [(result, bar) for result in results for bar in result.bars]
    if not bars:
        return []
    held = sum(bar.holds for _, bar in bars)
    rows = [
        {
            "benchmark": f"[{result.benchmark}](#{result.benchmark})",
            "bar": bar.name,
            "measured": number(bar.value),
            "limit": f"{bar.sense} {number(bar.limit)}",
            "verdict": bar.verdict() if bar.holds else f"**{bar.verdict()}**",
        }
        for result, bar in bars
    ]
    return [f"{held} of {len(bars)} bars hold.\n", markdown(rows) + "\n"]


def _reasons(folder: Path, results: list[Result]) -> dict[str, dict[str, str]]:
    """Per benchmark and missed bar, why it is missed."""
    path = folder / SHORTFALLS
    found = read_mapping(SHORTFALLS, path) if path.exists() else {}
    missed = {result.benchmark: {bar.name for bar in result.bars if not bar.holds} for result in results}
    for benchmark, reasons in found.items():
        for name in set(reasons) - missed.get(benchmark, set()):
            raise MisuseError(f"{SHORTFALLS}: {benchmark} has no bar '{name}' that falls short; take the text out")
    return found


def _section(result: Result, plots: list[str], reasons: dict[str, str]) -> list[str]:
    machine = result.machine
    isa = f" ({', '.join(machine['isa'])})" if machine["isa"] else ""
    gpu = f", GPU {machine['gpu']}" if machine["gpu"] else ", no GPU"
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    parts = [
        f"## {result.benchmark}\n",
        f"```\n{result.command}\n```\n",
        f"{result.date}, {machine['cpu']}, {machine['cores']} cores{gpu}{isa}; {versions}.\n",
    ]
    if result.rows:
        parts.append(markdown(result.rows) + "\n")
    for bar in result.bars:
        parts.append(f"- {bar.name}: {number(bar.value)} {bar.sense} {number(bar.limit)}, {bar.verdict()}")
        if not bar.holds:
            parts.append(f"  Why: {' '.join(reasons.get(bar.name, UNKNOWN).split())}")
    if result.bars:
        parts.append("")
    parts += [f"Note: {note}\n" for note in result.notes]
    parts += [f"![{Path(plot).stem}]({plot})\n" for plot in plots]
    return parts


def _plots(folder: Path, names: list[str]) -> dict[str, list[str]]:
    """Plots per benchmark: each picture belongs to the longest name that its own name begins with."""
    plots: dict[str, list[str]] = {name: [] for name in names}
    for picture in sorted(folder.glob("*.png")):
        owners = [name for name in names if picture.stem.startswith(name)]
        if owners:
            plots[max(owners, key=len)].append(picture.name)
    return plots


if __name__ == "__main__":
    raise SystemExit(main())
