"""The world without its traffic: roads, parking lots, yards, buildings, trees, lamps. Pictures differ by it most.

Roads run along x (and y at crossings); the camera's yaw gives every direction in the picture.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from yolo_kd.data.scenes import roads as rd
from yolo_kd.data.scenes.mesh import Foliage, Solid
from yolo_kd.data.scenes.scenery import bush, flat_building, gabled_house, lamp_post, tree
from yolo_kd.data.scenes.zones import BUILT, LAWN, LOT, PAVEMENT, ROAD, ZoneMap

SETTINGS = ("urban", "suburb", "highway", "industrial", "carpark", "rural")
Rect = tuple[float, float, float, float]

# How often a free plot becomes what, per setting: building, car park, yard, square, copse.
_PLOTS: dict[str, tuple[float, ...]] = {
    "urban": (0.62, 0.12, 0.0, 0.16, 0.10),
    "suburb": (0.62, 0.06, 0.0, 0.06, 0.26),
    "highway": (0.14, 0.06, 0.08, 0.0, 0.72),
    "industrial": (0.42, 0.14, 0.36, 0.0, 0.08),
    "carpark": (0.40, 0.36, 0.06, 0.08, 0.10),
    "rural": (0.18, 0.0, 0.10, 0.0, 0.72),
}


# Shortest and longest side in metres of a building, car park, yard, square, copse.
_PLOT_SIDES = ((10.0, 26.0), (18.0, 40.0), (22.0, 42.0), (10.0, 26.0), (8.0, 28.0))


@dataclass(frozen=True)
class Slot:
    """A parking place: its centre, direction, and size in metres; `yard` ones take lorries and containers."""

    x: float
    y: float
    heading: float
    length: float
    width: float
    yard: bool = False


@dataclass
class Layout:
    """Everything that stays where it is.

    Args:
        setting: One of SETTINGS.
        zones: The ground raster, which also keeps places taken.
    """

    setting: str
    zones: ZoneMap
    roads: list[rd.Road] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    marks: list[rd.Mark] = field(default_factory=list)
    solids: list[Solid] = field(default_factory=list)
    foliage: list[Foliage] = field(default_factory=list)
    lamps: list[tuple[float, float, float]] = field(default_factory=list)
    zebras: list[tuple[float, float, float]] = field(default_factory=list)

    def tracks(self, use: str) -> list[rd.Track]:
        """The tracks of all roads with one use."""
        return [track for road in self.roads for track in road.tracks if track.use == use]


def build_layout(
    rng: np.random.Generator,
    zones: ZoneMap,
    view: np.ndarray,
    tallest: float,
    setting: str | None = None,
    crossing: bool | None = None,
) -> Layout:
    """A random world.

    Args:
        rng: Source of all choices.
        zones: An empty raster over everything that may be seen.
        view: (4, 2) ground corners of the view in metres; the main road leads through it.
        tallest: Height limit of buildings in metres (the camera is above).
        setting: One of SETTINGS, or None for a random one.
        crossing: Whether a second road crosses, or None for chance.
    """
    setting = setting or SETTINGS[rng.choice(6, p=[0.34, 0.20, 0.12, 0.12, 0.12, 0.10])]
    layout = Layout(setting, zones)
    middle, spread = view.mean(0), view.std(0)
    x0, _, x1, _ = zones.bounds
    y = float(middle[1] + rng.uniform(-0.6, 0.6) * spread[1])
    road = _main_road(rng, setting, (x0 - 8, x1 + 8), y)
    layout.roads.append(road)
    if crossing is None:
        crossing = setting in ("urban", "suburb", "industrial", "carpark") and rng.random() < 0.5
    if crossing:
        layout.roads.append(
            _side_road(rng, setting, zones.bounds, float(middle[0] + rng.uniform(-0.5, 0.5) * spread[0]))
        )
    _footpaths(rng, zones)
    for one in layout.roads:
        if one.pavement:
            zones.stroke(one.path, one.width + 2 * one.pavement, PAVEMENT)
    for one in layout.roads:
        zones.stroke(one.path, one.width, ROAD)
        if one.median:
            zones.stroke(one.path, one.median, LAWN)
        layout.marks += one.marks
    if crossing:
        _junction(rng, layout)
    elif road.pavement and rng.random() < 0.5:
        _add_zebra(rng, layout, road, int(len(road.path) * rng.uniform(0.4, 0.6)))
    _arrows(rng, layout)
    if setting == "carpark":
        _plot(rng, layout, (float(middle[0]) - 24, y + road.width / 2 + 3.5, float(middle[0]) + 24, y + 44), 1, tallest)
    for side in (-1, 1):
        _frontage(rng, layout, road, side, tallest)
    for _ in range(50):
        _random_plot(rng, layout, tallest)
    _street_trees(rng, layout)
    _wild_green(rng, layout)
    _street_lamps(rng, layout)
    return layout


def _main_road(rng: np.random.Generator, setting: str, x: tuple[float, float], y: float) -> rd.Road:
    winds = setting in ("suburb", "rural", "highway") and rng.random() < 0.7
    path = rd.straight((x[0], y), (x[1], y))
    if winds:
        wave = rng.uniform(90, 180)
        path = rd.winding(*x, y, float(rng.uniform(0.02, 0.09) * wave), wave, float(rng.uniform(0, 2 * np.pi)))
    if setting == "highway":
        return rd.build_road(rng, path, int(rng.integers(2, 4)), 0.0, 27.0, median=float(rng.uniform(2.0, 5.0)))
    if setting == "urban":
        lanes = int(rng.integers(1, 3))
        return rd.build_road(
            rng, path, lanes, 3.2, 11.0, kerb_parking=rng.random() < 0.7, cycle_lane=rng.random() < 0.5
        )
    pavement = {"suburb": 2.0, "industrial": 1.8, "carpark": 2.2, "rural": 0.0}[setting]
    parking = setting in ("suburb", "industrial") and rng.random() < 0.5
    return rd.build_road(rng, path, 1, pavement, 11.0, kerb_parking=parking, cycle_lane=rng.random() < 0.25)


def _side_road(rng: np.random.Generator, setting: str, bounds: Rect, x: float) -> rd.Road:
    lean = float(rng.uniform(-0.22, 0.22))
    _, y0, _, y1 = bounds
    half = (y1 - y0) / 2 + 8
    mid = (y0 + y1) / 2
    path = rd.straight((x - lean * half, mid - half), (x + lean * half, mid + half))
    pavement = 3.0 if setting == "urban" else 2.0
    return rd.build_road(rng, path, 1, pavement, 9.0, kerb_parking=rng.random() < 0.4)


def _junction(rng: np.random.Generator, layout: Layout) -> None:
    """Clear the paint where two roads meet, and put stop lines and zebras before it."""
    one, two = layout.roads
    gaps = np.linalg.norm(one.path[:, None] - two.path[None], axis=2)
    i, j = np.unravel_index(int(gaps.argmin()), gaps.shape)
    centre = one.path[i]
    wide, deep = two.width / 2 + 1.0, one.width / 2 + 1.0
    kept = []
    for mark in layout.marks:
        off = np.abs(mark.points - centre)
        inside = (off[:, 0] < wide + 4.5) & (off[:, 1] < deep + 4.5)
        if mark.width and len(mark.points) > 2:
            pieces = np.split(mark.points[~inside], np.flatnonzero(np.diff(np.flatnonzero(~inside)) > 1) + 1)
            kept += [rd.Mark(piece, mark.width, mark.paint, mark.wear) for piece in pieces if len(piece) > 1]
        elif not inside.any():
            kept.append(mark)
    layout.marks = kept
    for road, at, reach in ((one, int(i), wide), (two, int(j), deep)):
        for way in (-1, 1):
            line, stripes = at + way * round(reach + 4.2), at + way * round(reach + 2.0)
            if not 1 <= line < len(road.path) - 1:
                continue
            layout.marks.append(rd.stop_line(road, line, way))
            if rng.random() < 0.6:
                _add_zebra(rng, layout, road, stripes)


def _add_zebra(rng: np.random.Generator, layout: Layout, road: rd.Road, at: int) -> None:
    if not 1 <= at < len(road.path) - 1:
        return
    layout.marks += rd.zebra(road, at, float(rng.uniform(0, 0.5)))
    (x, y), (dx, dy) = road.path[at], road.path[at + 1] - road.path[at]
    layout.zebras.append((float(x), float(y), float(np.arctan2(dx, -dy))))


def _arrows(rng: np.random.Generator, layout: Layout) -> None:
    if rng.random() < 0.5:
        for track in layout.tracks("drive"):
            layout.marks += rd.arrow(*track.pose(float(rng.uniform(0.3, 0.7)) * track.length))


def _footpaths(rng: np.random.Generator, zones: ZoneMap) -> None:
    """Paths across the open ground, up to two."""
    x0, y0, x1, y1 = zones.bounds
    for _ in range(int(rng.integers(0, 3))):
        ends = np.array(
            [[x0, rng.uniform(y0, y1)], [rng.uniform(x0, x1), rng.uniform(y0, y1)], [x1, rng.uniform(y0, y1)]]
        )
        zones.stroke(ends if rng.random() < 0.5 else ends[:, ::-1], float(rng.uniform(1.4, 2.6)), PAVEMENT)


def _frontage(rng: np.random.Generator, layout: Layout, road: rd.Road, side: int, tallest: float) -> None:
    """Plots in a row along a road, each close behind the pavement."""
    x0, _, x1, _ = layout.zones.bounds
    x = x0 - float(rng.uniform(0, 10))
    while x < x1:
        use, width, depth = _plot_size(rng, layout.setting)
        near = np.abs(road.path[:, 0] - x - width / 2) < width / 2 + 4
        edge = road.width / 2 + road.pavement + 1.3 + float(rng.exponential(1.5))
        y = float((side * road.path[near, 1]).max() + edge) if near.any() else np.inf
        rect = (x, y, x + width, y + depth) if side > 0 else (x, -y - depth, x + width, -y)
        if np.isfinite(y):
            _plot(rng, layout, rect, use, tallest)
        x += width + 2.5 + float(rng.exponential(4.0))


def _random_plot(rng: np.random.Generator, layout: Layout, tallest: float) -> None:
    x0, y0, x1, y1 = layout.zones.bounds
    use, width, depth = _plot_size(rng, layout.setting)
    x, y = rng.uniform(x0 - 5, x1 + 5 - width / 2), rng.uniform(y0 - 5, y1 + 5 - depth / 2)
    _plot(rng, layout, (x, y, x + width, y + depth), use, tallest)


def _plot_size(rng: np.random.Generator, setting: str) -> tuple[int, float, float]:
    """What to do with a plot, and its width and depth in metres."""
    use = int(rng.choice(5, p=_PLOTS[setting]))
    low, high = _PLOT_SIDES[use]
    if use == 0 and setting in ("industrial", "highway"):
        low, high = 18.0, 45.0
    if use == 0 and setting in ("suburb", "rural"):
        low, high = 8.0, 14.0
    return use, float(rng.uniform(low, high)), float(rng.uniform(low, high))


def _plot(rng: np.random.Generator, layout: Layout, rect: Rect, use: int, tallest: float) -> None:
    """Use a free rectangle as building 0, car park 1, yard 2, square 3 or copse 4; an occupied one stays as it is."""
    x0, y0, x1, y1 = rect
    if not layout.zones.is_lawn((x0 - 1.2, y0 - 1.2, x1 + 1.2, y1 + 1.2)):
        return
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    if use == 0:
        house = layout.setting in ("suburb", "rural") or (layout.setting == "urban" and rng.random() < 0.3)
        height = rng.uniform(3.0, 6.0) if house else rng.uniform(5.0, 16.0)
        shape = gabled_house if house else flat_building
        margin = 1.0 if house else 0.6
        mesh = shape(rng, (x1 - x0 - 2 * margin, y1 - y0 - 2 * margin), float(min(height, tallest)))
        layout.solids.append(Solid(mesh, (x0 + x1) / 2, (y0 + y1) / 2, 0.0, fixed=True))
        layout.zones.fill(corners, BUILT)
    elif use in (1, 2):
        layout.zones.fill(corners, LOT)
        _parking_rows(rng, layout, rect, yard=use == 2)
    elif use == 3:
        layout.zones.fill(corners, PAVEMENT)
        for _ in range(rng.integers(0, 5)):
            _add_tree(rng, layout, float(rng.uniform(x0, x1)), float(rng.uniform(y0, y1)), 2.5)
    else:
        for _ in range(int((x1 - x0) * (y1 - y0) / 40)):
            _add_tree(rng, layout, float(rng.uniform(x0, x1)), float(rng.uniform(y0, y1)), 3.5)


def _parking_rows(rng: np.random.Generator, layout: Layout, rect: Rect, yard: bool) -> None:
    x0, y0, x1, y1 = rect
    length, width, aisle = (14.0, 3.7, 9.0) if yard else (5.1, 2.55, 6.2)
    wear = float(rng.uniform(0.0, 0.6))
    y = y0 + 0.8
    back_to_back = False
    while y + length < y1:
        heading = np.pi / 2 if rng.random() < 0.5 else -np.pi / 2
        for x in np.arange(x0 + 1.0, x1 - 1.0 - width, width):
            layout.slots.append(Slot(float(x + width / 2), y + length / 2, heading, length, width, yard))
            if not yard or rng.random() < 0.4:
                layout.marks.append(rd.Mark(np.array([[x, y], [x, y + length]]), 0.11, rd.WHITE, wear))
        back_to_back = not back_to_back
        y += length + (aisle if back_to_back else 0.0)


def _add_tree(rng: np.random.Generator, layout: Layout, x: float, y: float, radius: float) -> None:
    radius = radius * float(rng.uniform(0.55, 1.15))
    fine = min(3.0, radius * layout.zones.px_per_metre / 16)
    layout.foliage.append(tree(rng, x, y, radius, radius * float(rng.uniform(1.7, 2.3)), fine))
    layout.zones.claim(np.array([[x - 0.4, y - 0.4], [x + 0.4, y - 0.4], [x + 0.4, y + 0.4], [x - 0.4, y + 0.4]]))


def _street_trees(rng: np.random.Generator, layout: Layout) -> None:
    """Rows of trees on the pavement; their crowns reach over parked cars."""
    for road in layout.roads:
        if not road.pavement or rng.random() < 0.4:
            continue
        for side in (-1, 1):
            row = rd.beside(road.path, side * (road.width / 2 + 0.7))
            for at in range(int(rng.integers(2, 8)), len(row), int(rng.integers(8, 16))):
                if layout.zones.zone_at(row[at]) == PAVEMENT and rng.random() < 0.8:
                    _add_tree(rng, layout, float(row[at, 0]), float(row[at, 1]), 2.4)


def _wild_green(rng: np.random.Generator, layout: Layout) -> None:
    for x, y in layout.zones.sample(rng, LAWN, int(rng.integers(4, 20))):
        if rng.random() < 0.5:
            _add_tree(rng, layout, float(x), float(y), 3.0)
        else:
            layout.foliage.append(bush(rng, float(x), float(y)))


def _street_lamps(rng: np.random.Generator, layout: Layout) -> None:
    for road in layout.roads:
        side = 1 if rng.random() < 0.5 else -1
        row = rd.beside(road.path, side * (road.width / 2 + 0.5))
        for at in range(int(rng.integers(5, 20)), len(row) - 1, 24):
            (x, y), (dx, dy) = row[at], row[at + 1] - row[at]
            if layout.zones.zone_at(row[at]) in (PAVEMENT, LAWN):
                heading = float(np.arctan2(-side * dx, side * dy))
                layout.solids += [Solid(part, float(x), float(y), heading) for part in lamp_post(rng)]
                layout.lamps.append((float(x + 1.5 * np.cos(heading)), float(y + 1.5 * np.sin(heading)), 7.0))
