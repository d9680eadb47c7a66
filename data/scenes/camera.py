"""A pinhole camera over the ground plane: metres in, pixels out.

World: x east, y north, z up, metres. `yaw` is the compass direction that points up in the picture, `tilt` the angle
from straight down. Pixels: x right, y down, the centre of the top-left pixel at (0.5, 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Camera:
    """Position and view of the drone.

    Args:
        size_wh: Picture size in pixels.
        focal: Focal length in pixels.
        position: (3,) metres.
        axes: (3, 3) rows are the world directions of picture right, picture up and view.
    """

    size_wh: tuple[int, int]
    focal: float
    position: np.ndarray
    axes: np.ndarray

    @classmethod
    def over(
        cls,
        target_xy: tuple[float, float],
        px_per_metre: float,
        yaw: float,
        tilt: float,
        size_wh: tuple[int, int],
        focal: float,
    ) -> Camera:
        """The camera that sees `target_xy` in its centre with `px_per_metre` there; angles in radians."""
        forward = np.array([np.sin(yaw) * np.sin(tilt), np.cos(yaw) * np.sin(tilt), -np.cos(tilt)])
        right = np.array([np.cos(yaw), -np.sin(yaw), 0.0])
        axes = np.stack([right, np.cross(right, forward), forward])
        position = np.array([*target_xy, 0.0]) - forward * (focal / px_per_metre)
        return cls(size_wh, focal, position, axes)

    def scaled(self, factor: int) -> Camera:
        """The same view on a canvas `factor` times as large."""
        width, height = self.size_wh
        return replace(self, size_wh=(width * factor, height * factor), focal=self.focal * factor)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (N, 2) of world points (N, 3), and the pixels per metre (N,) at each of them."""
        local = (points - self.position) @ self.axes.T
        # Nothing that is drawn lies behind the camera; the floor only keeps far-off corners finite.
        scale = self.focal / np.maximum(local[:, 2], 0.05 * self.position[2])
        width, height = self.size_wh
        pixels = np.stack([width / 2 + local[:, 0] * scale, height / 2 - local[:, 1] * scale], axis=1)
        return pixels, scale

    def ground_to_pixels(self) -> np.ndarray:
        """The homography (3, 3) from ground metres (x, y, 1) to pixels."""
        width, height = self.size_wh
        right, up, forward = self.axes
        intrinsics = np.array([[self.focal, 0, width / 2], [0, -self.focal, height / 2], [0, 0, 1]])
        columns = [np.array([axis[0], axis[1], -axis @ self.position]) for axis in (right, up, forward)]
        return intrinsics @ np.stack(columns)

    def footprint(self) -> np.ndarray:
        """Where the four picture corners meet the ground: (4, 2) metres, in the order of the picture."""
        width, height = self.size_wh
        corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], float)
        ground = corners @ np.linalg.inv(self.ground_to_pixels()).T
        return ground[:, :2] / ground[:, 2:]
