"""The painted ground: a picture of the layout seen straight down, in raster pixels, to be warped into the view."""

from __future__ import annotations

import cv2
import numpy as np
from yolo_kd.data.scenes.layout import Layout
from yolo_kd.data.scenes.roads import YELLOW, Mark
from yolo_kd.data.scenes.zones import LAWN, LOT, PAVEMENT, ROAD, ZoneMap

# Two colours per zone between which the noise wanders; several looks each, BGR.
_LAWNS = [
    ((50, 84, 72), (88, 132, 116)),
    ((62, 100, 112), (118, 156, 172)),
    ((40, 70, 56), (72, 108, 90)),
    ((88, 112, 132), (128, 150, 166)),
]
_GRAVELS = [((104, 114, 124), (140, 150, 158)), ((112, 114, 116), (146, 148, 150)), ((92, 108, 130), (122, 138, 158))]
_ROADS = [((84, 84, 86), (106, 106, 108)), ((66, 66, 70), (86, 86, 88)), ((112, 114, 118), (136, 138, 140))]
_PAVEMENTS = [
    ((146, 150, 154), (172, 176, 180)),
    ((122, 132, 148), (148, 160, 176)),
    ((128, 130, 130), (150, 152, 152)),
]


def paint_ground(rng: np.random.Generator, layout: Layout) -> np.ndarray:
    """The ground in full light: (h, w, 3) uint8 BGR, the size of `layout.zones`."""
    zones = layout.zones
    shape = zones.zones.shape
    soft = _noise(rng, shape, zones.px_per_metre, (12.0, 4.0, 1.2))
    road = _ROADS[rng.integers(len(_ROADS))]
    bare = layout.setting in ("urban", "industrial") and rng.random() < 0.45
    looks = {
        LAWN: _GRAVELS[rng.integers(len(_GRAVELS))] if bare else _LAWNS[rng.choice(4, p=[0.4, 0.2, 0.25, 0.15])],
        PAVEMENT: _PAVEMENTS[rng.integers(len(_PAVEMENTS))],
        ROAD: road,
        LOT: road if rng.random() < 0.5 else _ROADS[rng.integers(len(_ROADS))],
    }
    picture = cv2.applyColorMap(soft, _ramp(*looks[LAWN]))
    _open_ground(rng, layout, picture)
    for zone in (PAVEMENT, ROAD, LOT):
        mask = cv2.compare(zones.zones, zone, cv2.CMP_EQ)
        cv2.copyTo(cv2.applyColorMap(soft, _ramp(*looks[zone])), mask, picture)
    _edges(layout, picture, looks[PAVEMENT][1])
    _stains(rng, layout, picture)
    for mark in layout.marks:
        _mark(zones, picture, mark, looks[ROAD][0])
    grain = rng.integers(116, 140, (shape[0] // 2 + 1, shape[1] // 2 + 1), np.uint8)
    grain = cv2.resize(grain, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return cv2.multiply(picture, cv2.merge([grain, grain, grain]), scale=1 / 128)


def _noise(
    rng: np.random.Generator, shape: tuple[int, int], px_per_metre: float, sizes: tuple[float, ...]
) -> np.ndarray:
    """Soft spots of the given sizes in metres, uint8 around 128."""
    half = (shape[0] // 2 + 1, shape[1] // 2 + 1)
    total = np.zeros(half, np.float32)
    for size, weight in zip(sizes, (0.5, 0.3, 0.2)):
        cells = [max(2, round(n / (px_per_metre * size))) for n in shape]
        total += weight * cv2.resize(rng.random(cells, np.float32), half[::-1], interpolation=cv2.INTER_LINEAR)
    return cv2.resize(cv2.convertScaleAbs(total, alpha=255), shape[::-1], interpolation=cv2.INTER_LINEAR)


def _ramp(low: tuple[int, int, int], high: tuple[int, int, int]) -> np.ndarray:
    # The noise is a sum of even deviates: nearly all of it lies between a quarter and three quarters.
    share = np.clip((np.arange(256) / 255 - 0.25) * 2, 0, 1)[:, None]
    ramp = np.array(low) * (1 - share) + np.array(high) * share
    return np.round(ramp).astype(np.uint8).reshape(256, 1, 3)


def _open_ground(rng: np.random.Generator, layout: Layout, picture: np.ndarray) -> None:
    """Worn patches, and the furrows of a field or the stripes of a mower."""
    zones = layout.zones
    height, width = zones.zones.shape
    q = zones.px_per_metre
    veil = np.full((height, width), 128, np.uint8)
    for x, y in zones.to_px(zones.sample(rng, LAWN, 12)).astype(int).tolist():
        axes = (int(rng.uniform(0.8, 6) * q), int(rng.uniform(0.8, 4) * q))
        cv2.ellipse(veil, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, int(rng.integers(108, 156)), -1)
    if rng.random() < 0.4:
        gap, tone = rng.uniform(1.0, 3.0) * q, int(rng.integers(116, 124))
        lean = rng.uniform(-1.2, 1.2)
        for x in np.arange(-height * abs(lean), width + height * abs(lean), 2 * gap):
            ends = (int(x), 0), (int(x + lean * height), height)
            cv2.line(veil, ends[0], ends[1], tone, max(1, int(gap * 0.8)))
    veil = cv2.blur(veil, (9, 9))
    cv2.multiply(picture, cv2.merge([veil, veil, veil]), dst=picture, scale=1 / 128)


def _edges(layout: Layout, picture: np.ndarray, stone: tuple[int, int, int]) -> None:
    """Kerb stones: a bright rim wherever a road meets something else."""
    road = cv2.compare(layout.zones.zones, ROAD, cv2.CMP_EQ)
    pavement = cv2.compare(layout.zones.zones, PAVEMENT, cv2.CMP_EQ)
    width = max(3, 2 * round(0.12 * layout.zones.px_per_metre) + 1)
    rim = cv2.bitwise_and(cv2.dilate(road, np.ones((width, width), np.uint8)), pavement)
    picture[rim > 0] = [min(255, c + 22) for c in stone]


def _stains(rng: np.random.Generator, layout: Layout, picture: np.ndarray) -> None:
    """Wheel tracks, oil, patches and cracks on asphalt."""
    zones = layout.zones
    q = zones.px_per_metre
    veil = np.full(zones.zones.shape, 128, np.uint8)
    for track in layout.tracks("drive"):
        path = np.round(zones.to_px(track.path)).astype(np.int32)
        cv2.polylines(veil, [path], False, int(rng.integers(112, 126)), max(1, round(1.9 * q)))
        cv2.polylines(veil, [path], False, int(rng.integers(118, 134)), max(1, round(0.9 * q)))
    for zone, count in ((ROAD, 14), (LOT, 14)):
        for x, y in zones.to_px(zones.sample(rng, zone, count)):
            tone = int(rng.integers(96, 150))
            size = rng.uniform(0.3, 2.5, 2) * q
            if rng.random() < 0.5:
                cv2.ellipse(veil, (int(x), int(y)), (int(size[0] / 2) + 1, int(size[1] / 2) + 1), 0, 0, 360, tone, -1)
            else:
                cv2.rectangle(veil, (int(x), int(y)), (int(x + size[0] * 2), int(y + size[1])), tone, -1)
    veil = cv2.blur(veil, (5, 5))
    hard = cv2.inRange(zones.zones, ROAD, LOT)
    veil[hard == 0] = 128
    cv2.multiply(picture, cv2.merge([veil, veil, veil]), dst=picture, scale=1 / 128)


def _mark(zones: ZoneMap, picture: np.ndarray, mark: Mark, under: tuple[int, int, int]) -> None:
    paint = (70, 190, 225) if mark.paint == YELLOW else (232, 234, 234)
    color = [p * (1 - mark.wear) + u * mark.wear for p, u in zip(paint, under)]
    points = np.round(zones.to_px(mark.points) * 8).astype(np.int32)
    if mark.width:
        thickness = max(1, round(mark.width * zones.px_per_metre))
        cv2.polylines(picture, [points], False, color, thickness, cv2.LINE_AA, 3)
    else:
        cv2.fillPoly(picture, [points], color, cv2.LINE_AA, 3)
