"""What a check of a data set can find, how bad each is, and the report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Args:
        meaning: What it is and what follows, in half a line.
        error: Whether a data set with it is refused; a remark if not.
        stops: Whether training goes on without the picture or the box and hardly says so, so that it is refused too.
    """

    meaning: str
    error: bool = True
    stops: bool = False


KINDS: dict[str, Kind] = {
    "part_missing": Kind("a folder or list that does not exist", stops=True),
    "part_empty": Kind("a part without images, or no such part", stops=True),
    "part_unlabelled": Kind("images and not one box; nothing is learnt or measured on them", stops=True),
    "names_gap": Kind("class ids are not 0, 1, 2, ... without a gap; Ultralytics refuses that", stops=True),
    "names_count": Kind("nc is another number than that of the names; Ultralytics refuses that", stops=True),
    "image_missing": Kind("in a list, but not on the disk; training goes on without it", stops=True),
    "image_unreadable": Kind("the file cannot be read; training goes on without it", stops=True),
    "image_empty": Kind("a file of 0 bytes; training goes on without it", stops=True),
    "image_damaged": Kind("cut off, damaged or no picture; training goes on without it", stops=True),
    "image_tiny": Kind("below 10 pixels; training goes on without it", stops=True),
    "image_oversized": Kind("more pixels than PIL opens; training goes on without it", stops=True),
    "image_giant": Kind(
        "more than 100 million pixels or 16384 on a side; trained on, but not calibrated or evaluated on"
    ),
    "image_black": Kind("16 bits a channel, black in its upper 8, which is all that training sees"),
    "label_unreadable": Kind("cannot be read; training goes on without the image", stops=True),
    "label_malformed": Kind("a line that is no box; training goes on without the image", stops=True),
    "label_not_finite": Kind("nan or inf; training goes on without the image", stops=True),
    "label_out_of_range": Kind("a box outside of the picture; training goes on without the image", stops=True),
    "label_class": Kind("a class that the data set does not have; training goes on without the image", stops=True),
    "label_mixed": Kind("boxes and outlines in one file; training goes on without the image", stops=True),
    "box_without_area": Kind("never trained on, and never found in validation"),
    "image_shared": Kind("the same file in two parts: what was learnt is validated"),
    "part_leaks": Kind("too much of a part looks like a training picture: what was learnt is validated"),
    "near_duplicate": Kind("looks like a training picture", error=False),
    "image_twice": Kind("the same file again in one part", error=False),
    "image_other_format": Kind("Ultralytics reads this format, yolo-kd does not: not checked", error=False),
    "image_remark": Kind("read otherwise than it is stored", error=False),
    "box_repeated": Kind("the same box again; training leaves it out", error=False),
    "box_over_edge": Kind("reaches out of the picture; training cuts it off", error=False),
    "label_without_image": Kind("a label file that belongs to no image", error=False),
    "class_unused": Kind("no box of this class in train", error=False),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Args:
        kind: A key of `KINDS`.
        path: The file, folder, part or class that it is about.
        part: "train", "val" or "test"; empty if it is about the whole.
        what: Details.
    """

    kind: str
    path: str
    part: str = ""
    what: str = ""

    def text(self) -> str:
        """One line; reports of a file begin with its name already."""
        return f"{self.path}: {self.what}" if self.what else self.path


@dataclass
class Count:
    """Numbers of one part: images on the disk that can be used, boxes, images without label file, and with an empty one."""

    images: int = 0
    boxes: int = 0
    unlabelled: int = 0
    empty_labels: int = 0


@dataclass
class Report:
    """What a check saw.

    Args:
        source: The data.yaml.
        names: Class id to name.
        deep: Whether pictures were decoded and compared by their looks.
        skipped: What was not looked at, in words; empty after a deep check.
        parts: Numbers of each part.
        findings: In the order of the check.
        near: Share of the images of a part that look like a training picture.
    """

    source: str
    names: Mapping[int, str]
    deep: bool
    skipped: str = ""
    parts: dict[str, Count] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    near: dict[str, float] = field(default_factory=dict)

    def add(self, kind: str, path: str | Path, part: str = "", what: str = "") -> None:
        """Note a finding; a message that begins with the file's name loses it."""
        self.findings.append(Finding(kind, str(path), part, what.removeprefix(f"{path}: ").removeprefix(f"{path}, ")))

    def counts(self) -> dict[str, int]:
        """Kind to number of findings, errors first, in the order of `KINDS`."""
        seen = Counter(finding.kind for finding in self.findings)
        return {kind: seen[kind] for kind in KINDS if seen[kind]}

    @property
    def errors(self) -> int:
        """Number of findings for which the data set is refused."""
        return sum(KINDS[finding.kind].error for finding in self.findings)

    @property
    def stops(self) -> int:
        """Number of findings that would silently change a training."""
        return sum(KINDS[finding.kind].stops for finding in self.findings)

    def plain(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return {
            "data": self.source,
            "deep": self.deep,
            "skipped": self.skipped,
            "names": {str(k): v for k, v in self.names.items()},
            "parts": {name: asdict(count) for name, count in self.parts.items()},
            "near_duplicates_of_train": self.near,
            "errors": self.errors,
            "counts": self.counts(),
            "findings": [asdict(finding) for finding in self.findings],
        }

    def to_json(self) -> str:
        """The text of the file that `out=` names."""
        return json.dumps(self.plain(), indent=1, ensure_ascii=False) + "\n"

    def lines(self, shown: int, where: str) -> list[str]:
        """A summary for a terminal.

        Args:
            shown: Findings of each kind at most.
            where: Where all are, said where some are left out.
        """
        found = [self.source, *(f"  {name}: {_count(count)}" for name, count in self.parts.items())]
        by_kind: dict[str, list[Finding]] = {}
        for finding in self.findings:
            by_kind.setdefault(finding.kind, []).append(finding)
        for kind, number in self.counts().items():
            mark = "ERROR " if KINDS[kind].error else "remark"
            found.append(f"{mark} {kind}: {number} ({KINDS[kind].meaning})")
            found += [f"    {finding.text()}" for finding in by_kind[kind][:shown]]
            if number > shown:
                found.append(f"    ... and {number - shown} more{where}")
        found += [
            f"{part}: {share:.1%} of the images look like a training picture" for part, share in self.near.items()
        ]
        if self.skipped:
            found.append(f"not looked at: {self.skipped}")
        return found


def _count(count: Count) -> str:
    bare = count.unlabelled + count.empty_labels
    without = f" ({bare} without objects)" if bare else ""
    return f"{count.images} images{without}, {count.boxes} boxes"
