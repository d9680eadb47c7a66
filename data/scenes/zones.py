"""A raster of what the ground is (lawn, pavement, road ...) and of which part of it is taken."""

from __future__ import annotations

import cv2
import numpy as np

LAWN, PAVEMENT, ROAD, LOT, BUILT = range(5)


class ZoneMap:
    """Ground zones over a rectangle of the world.

    Args:
        bounds: x0, y0, x1, y1 in metres.
        px_per_metre: Raster resolution.
    """

    def __init__(self, bounds: tuple[float, float, float, float], px_per_metre: float) -> None:
        self.bounds = bounds
        self.px_per_metre = px_per_metre
        x0, y0, x1, y1 = bounds
        shape = (int(np.ceil((y1 - y0) * px_per_metre)), int(np.ceil((x1 - x0) * px_per_metre)))
        self._corner = np.array([x0, y1])
        self._scale = np.array([px_per_metre, -px_per_metre])
        self.zones = np.zeros(shape, np.uint8)
        self.taken = np.zeros(shape, np.uint8)

    def to_px(self, points: np.ndarray) -> np.ndarray:
        """Raster pixels (N, 2) of ground points (N, 2) in metres; north is up."""
        return (points - self._corner) * self._scale

    def to_ground(self) -> np.ndarray:
        """The homography (3, 3) from raster pixels to ground metres."""
        x0, _, _, y1 = self.bounds
        q = self.px_per_metre
        return np.array([[1 / q, 0, x0], [0, -1 / q, y1], [0, 0, 1.0]])

    def fill(self, points: np.ndarray, zone: int) -> None:
        """Make a polygon (N, 2) in metres a zone."""
        cv2.fillPoly(self.zones, [np.round(self.to_px(points)).astype(np.int32)], zone)

    def stroke(self, path: np.ndarray, width: float, zone: int) -> None:
        """Make a band of `width` metres along a path (N, 2) a zone."""
        thickness = max(1, round(width * self.px_per_metre))
        cv2.polylines(self.zones, [np.round(self.to_px(path)).astype(np.int32)], False, zone, thickness)

    def is_lawn(self, rect: tuple[float, float, float, float]) -> bool:
        """Whether nothing has been built yet within x0, y0, x1, y1 metres (outside the raster counts as lawn)."""
        x0, y0, x1, y1 = rect
        (left, bottom), (right, top) = self.to_px(np.array([[x0, y0], [x1, y1]])).astype(int).clip(0)
        return not self.zones[top:bottom, left:right].any()

    def zone_at(self, point: np.ndarray) -> int:
        """The zone at a point (2,) in metres, or -1 outside the raster."""
        col, row = self.to_px(point).astype(int)
        height, width = self.zones.shape
        return int(self.zones[row, col]) if 0 <= row < height and 0 <= col < width else -1

    def close_outside(self, polygon: np.ndarray) -> None:
        """Take everything outside a convex polygon (N, 2) in metres, so that nothing is placed where none looks."""
        self.taken[:] = 1
        cv2.fillConvexPoly(self.taken, np.round(self.to_px(polygon)).astype(np.int32), 0)

    def claim(self, points: np.ndarray) -> bool:
        """Take a convex polygon (N, 2) in metres; False, and nothing is taken, if it is not free or not inside."""
        pixels = np.round(self.to_px(points)).astype(np.int32)
        left, top = pixels.min(0)
        right, bottom = pixels.max(0) + 1
        height, width = self.taken.shape
        if left < 0 or top < 0 or right > width or bottom > height:
            return False
        stamp = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillConvexPoly(stamp, pixels - (left, top), 1)
        window = self.taken[top:bottom, left:right]
        if cv2.countNonZero(cv2.bitwise_and(stamp, window)):
            return False
        cv2.bitwise_or(stamp, window, dst=window)
        return True

    def sample(self, rng: np.random.Generator, zone: int, count: int) -> np.ndarray:
        """Up to `count` free points (k, 2) in metres, drawn evenly over the zone."""
        height, width = self.zones.shape
        # Ten throws per wanted point; a zone that covers less than a tenth of the map gives fewer points.
        rows, cols = rng.integers(0, height, count * 10), rng.integers(0, width, count * 10)
        hit = (self.zones[rows, cols] == zone) & (self.taken[rows, cols] == 0)
        pixels = np.stack([cols[hit], rows[hit]], 1)[:count] + 0.5
        return pixels / self._scale + self._corner
