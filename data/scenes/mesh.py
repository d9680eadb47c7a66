"""Small solids made of flat faces, and the round crowns of plants: the vocabulary of everything that stands up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Color = tuple[float, float, float]
Points2 = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Mesh:
    """Flat convex faces in local metres; x forward, y left, z up.

    Args:
        vertices: (V, 3), the corners of all faces one after the other, counter-clockwise seen from outside.
        starts: (F + 1,) first vertex of each face, then V.
        colors: (F, 3) BGR 0-255 in full sun.
        glow: (F,) the face shines at night.
    """

    vertices: np.ndarray
    starts: np.ndarray
    colors: np.ndarray
    glow: np.ndarray

    @property
    def extent(self) -> np.ndarray:
        """Lowest and highest corner, (2, 3) metres."""
        return np.stack([self.vertices.min(0), self.vertices.max(0)])


@dataclass(frozen=True)
class Solid:
    """A mesh put into the world.

    Args:
        mesh: Its shape.
        x, y: Ground position in metres.
        heading: Direction of local x, radians counter-clockwise from east.
        class_id: Index into CLASSES, or -1 for what carries no label.
        track: Number of the object in its world, -1 without a label.
        moving: It drives, so at night its lights are on.
        fixed: It belongs to the scenery, so its shadow may darken what stands in it.
    """

    mesh: Mesh
    x: float
    y: float
    heading: float
    class_id: int = -1
    track: int = -1
    moving: bool = False
    fixed: bool = False


@dataclass(frozen=True)
class Foliage:
    """A tree or bush: overlapping balls.

    Args:
        balls: (K, 4) x, y, z, radius in world metres, painted in this order.
        colors: (K, 3) BGR.
    """

    balls: np.ndarray
    colors: np.ndarray


@dataclass
class MeshBuilder:
    """Collects faces; `build` freezes them."""

    _points: list[tuple[float, float, float]] = field(default_factory=list)
    _starts: list[int] = field(default_factory=lambda: [0])
    _colors: list[Color] = field(default_factory=list)
    _glow: list[bool] = field(default_factory=list)

    def face(self, points: Sequence[tuple[float, float, float]], color: Color, glow: bool = False) -> None:
        """One convex polygon, counter-clockwise seen from outside."""
        self._points.extend(points)
        self._starts.append(len(self._points))
        self._colors.append(color)
        self._glow.append(glow)

    def prism(
        self,
        base: Points2,
        top: Points2,
        z: tuple[float, float],
        side: Color | Sequence[Color],
        roof: Color,
    ) -> None:
        """Side faces from `base` up to `top` (same number of corners, counter-clockwise) and the roof over them.

        `side` may be one colour per side; side i stands on the edge from corner i to corner i + 1.
        """
        sides: Sequence[Any] = [side] * len(base) if isinstance(side[0], (int, float)) else side
        for i, color in enumerate(sides):
            j = (i + 1) % len(base)
            self.face([(*base[i], z[0]), (*base[j], z[0]), (*top[j], z[1]), (*top[i], z[1])], color)
        self.plate(top, z[1], roof)

    def box(self, x: tuple[float, float], y: tuple[float, float], z: tuple[float, float], side: Color, roof: Color):
        """An upright box; each pair is (low, high) in metres."""
        corners = rectangle(x, y)
        self.prism(corners, corners, z, side, roof)

    def plate(self, points: Points2, z: float, color: Color, glow: bool = False) -> None:
        """A flat marking that lies at height `z`."""
        self.face([(px, py, z) for px, py in points], color, glow)

    def build(self) -> Mesh:
        """The finished mesh."""
        return Mesh(
            np.array(self._points), np.array(self._starts), np.array(self._colors, float), np.array(self._glow, bool)
        )


def rectangle(x: tuple[float, float], y: tuple[float, float]) -> list[tuple[float, float]]:
    """Corners of a rectangle, counter-clockwise from the lowest."""
    return [(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1])]


def disc(x: float, y: float, rx: float, ry: float, corners: int = 6) -> list[tuple[float, float]]:
    """A polygon with the half axes rx, ry, counter-clockwise."""
    turns = np.arange(corners) * (2 * np.pi / corners)
    return [(x + rx * float(np.cos(a)), y + ry * float(np.sin(a))) for a in turns]


def bevelled(x: tuple[float, float], y: float, front: float, rear: float) -> list[tuple[float, float]]:
    """A car outline from above: half width `y`, corners cut by `front` and `rear` metres, counter-clockwise."""
    (x0, x1), f, r = x, front, rear
    return [(x0 + r, -y), (x1 - f, -y), (x1, -y + f), (x1, y - f), (x1 - f, y), (x0 + r, y), (x0, y - r), (x0, -y + r)]


def tint(color: Color, factor: float) -> Color:
    """The colour, brighter or darker, kept within 0-255."""
    b, g, r = (min(255.0, max(0.0, c * factor)) for c in color)
    return b, g, r


def pick(colors: Sequence[Color], rng: np.random.Generator) -> Color:
    """One of the colours, a little brighter or darker than listed."""
    return tint(colors[int(rng.integers(len(colors)))], float(rng.uniform(0.85, 1.15)))
