"""Roads: their course, lanes, markings, crossings, and the paths along which traffic and people move."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

LANE_WIDTH = 3.25
CYCLE_WIDTH = 1.3
PARKING_WIDTH = 2.3
WHITE, YELLOW = 0, 1


@dataclass(frozen=True)
class Track:
    """A path in the direction of travel.

    Args:
        path: (n, 2) metres, one point per metre.
        use: "drive", "cycle", "walk" or "kerb" (parked along it).
        speed: Metres per second of everything that moves along it.
    """

    path: np.ndarray
    use: str
    speed: float

    @property
    def length(self) -> float:
        """Metres from the first to the last point."""
        return float(len(self.path) - 1)

    def pose(self, s: float, aside: float = 0.0) -> tuple[float, float, float]:
        """x, y, heading at `s` metres from the start (it starts over at the end), `aside` metres to the left."""
        s = s % self.length
        i = min(int(s), len(self.path) - 2)
        (x0, y0), (x1, y1) = self.path[i], self.path[i + 1]
        dx, dy = x1 - x0, y1 - y0
        norm = float(np.hypot(dx, dy))
        share = s - i
        x, y = x0 + dx * share - aside * dy / norm, y0 + dy * share + aside * dx / norm
        return float(x), float(y), float(np.arctan2(dy, dx))


@dataclass(frozen=True)
class Mark:
    """Paint on the ground: a filled polygon (width 0) or a line of `width` metres.

    Args:
        points: (k, 2) metres.
        width: Metres, 0 fills.
        paint: WHITE or YELLOW.
        wear: 0 fresh, 1 gone.
    """

    points: np.ndarray
    width: float
    paint: int = WHITE
    wear: float = 0.2


@dataclass
class Road:
    """One road with everything that belongs to its cross-section.

    Args:
        path: (n, 2) metres, one point per metre, along the middle.
        width: Metres of asphalt.
        pavement: Metres of pavement on each side, 0 for none.
        tracks: Where traffic, parked cars and people go.
        marks: Paint.
        median: Metres of green between the carriageways.
    """

    path: np.ndarray
    width: float
    pavement: float
    tracks: list[Track] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    median: float = 0.0


def straight(start: tuple[float, float], stop: tuple[float, float]) -> np.ndarray:
    """A path (n, 2) with one point per metre."""
    length = int(np.hypot(stop[0] - start[0], stop[1] - start[1]))
    return np.linspace(start, stop, length + 1)


def winding(x0: float, x1: float, y: float, swing: float, wave: float, phase: float) -> np.ndarray:
    """A path (n, 2) from x0 to x1 that swings `swing` metres around y with the wave length `wave`."""
    x = np.arange(x0, x1, 0.25)
    return evenly(np.stack([x, y + swing * np.sin(2 * np.pi * x / wave + phase)], 1))


def evenly(path: np.ndarray) -> np.ndarray:
    """The path with one point per metre."""
    way = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    at = np.arange(0.0, way[-1], 1.0)
    return np.stack([np.interp(at, way, path[:, 0]), np.interp(at, way, path[:, 1])], 1)


def beside(path: np.ndarray, aside: float) -> np.ndarray:
    """The path moved `aside` metres to its left."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    return path + aside * np.stack([-tangent[:, 1], tangent[:, 0]], 1)


def build_road(
    rng: np.random.Generator,
    path: np.ndarray,
    lanes: int,
    pavement: float,
    speed: float,
    kerb_parking: bool = False,
    cycle_lane: bool = False,
    median: float = 0.0,
) -> Road:
    """A road with `lanes` per direction; traffic keeps to the right."""
    road = Road(path, 0.0, pavement, median=median)
    edge = median / 2 + lanes * LANE_WIDTH
    wear = float(rng.uniform(0.0, 0.6))
    centre_paint = YELLOW if rng.random() < 0.15 else WHITE
    if median:
        for side in (-1, 1):
            road.marks.append(Mark(beside(path, side * (median / 2 + 0.25)), 0.15, WHITE, wear))
    elif rng.random() < 0.35:
        road.marks += [Mark(beside(path, side * 0.15), 0.13, centre_paint, wear) for side in (-0.8, 0.8)]
    else:
        road.marks += _dashes(path, 3.0, 6.0, centre_paint, wear)
    for side in (-1, 1):
        away = path if side < 0 else path[::-1]
        for lane in range(lanes):
            middle = beside(away, -(median / 2 + (lane + 0.5) * LANE_WIDTH))
            road.tracks.append(Track(evenly(middle), "drive", speed * float(rng.uniform(0.75, 1.15))))
            if lane:
                road.marks += _dashes(beside(away, -(median / 2 + lane * LANE_WIDTH)), 3.0, 6.0, WHITE, wear)
        out = edge
        if cycle_lane or kerb_parking or median:
            road.marks.append(Mark(beside(away, -out), 0.13, WHITE, wear))
        if cycle_lane:
            road.tracks.append(
                Track(evenly(beside(away, -(out + CYCLE_WIDTH / 2))), "cycle", float(rng.uniform(3.5, 6)))
            )
            out += CYCLE_WIDTH
        if kerb_parking:
            road.tracks.append(Track(evenly(beside(away, -(out + PARKING_WIDTH / 2))), "kerb", 0.0))
            out += PARKING_WIDTH
        if pavement:
            for share in (0.35, 0.7):
                walk = evenly(beside(away, -(out + 0.3 + share * pavement)))
                walk = walk if rng.random() < 0.5 else walk[::-1]
                road.tracks.append(Track(walk, "walk", float(rng.uniform(1.0, 1.6))))
    outer = cycle_lane * CYCLE_WIDTH + kerb_parking * PARKING_WIDTH
    road.width = 2 * (edge + outer + (1.6 if median else 0.35))
    return road


def zebra(road: Road, at: int, wear: float) -> list[Mark]:
    """Stripes across the road at point `at` of its path."""
    middle, tangent, normal = _frame(road.path, at)
    stripes = []
    for aside in np.arange(-road.width / 2 + 0.4, road.width / 2 - 0.6, 1.0):
        corners = [(-1.6, aside), (1.6, aside), (1.6, aside + 0.5), (-1.6, aside + 0.5)]
        stripes.append(Mark(np.array([middle + u * tangent + v * normal for u, v in corners]), 0.0, WHITE, wear))
    return stripes


def stop_line(road: Road, at: int, side: int) -> Mark:
    """A thick line across the lanes of one direction (`side` 1: left of the path)."""
    middle, _, normal = _frame(road.path, at)
    ends = np.array([middle + side * 0.3 * normal, middle + side * (road.width / 2 - 0.4) * normal])
    return Mark(ends, 0.45, WHITE, 0.15)


def arrow(x: float, y: float, heading: float) -> list[Mark]:
    """A straight-ahead arrow of 4 m on a lane."""
    shape = np.array([[-2, -0.08], [0.6, -0.08], [0.6, -0.35], [2, 0], [0.6, 0.35], [0.6, 0.08], [-2, 0.08]])
    cos, sin = np.cos(heading), np.sin(heading)
    return [Mark(shape @ np.array([[cos, sin], [-sin, cos]]) + (x, y), 0.0, WHITE, 0.25)]


def _frame(path: np.ndarray, at: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tangent = path[at + 1] - path[at]
    tangent = tangent / np.linalg.norm(tangent)
    return path[at], tangent, np.array([-tangent[1], tangent[0]])


def _dashes(path: np.ndarray, dash: float, gap: float, paint: int, wear: float) -> list[Mark]:
    starts = np.arange(0, len(path) - dash - 1, dash + gap).astype(int)
    return [Mark(path[[s, s + int(dash)]], 0.14, paint, wear) for s in starts]
