"""Draws a world into a view, far things first, and finds out what of each labelled object can be seen."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from yolo_kd.data.scenes.camera import Camera
from yolo_kd.data.scenes.light import Light
from yolo_kd.data.scenes.mesh import Foliage, Solid

# An object is labelled when at least this share of it is visible (in the frame and not covered) ...
MIN_VISIBLE = 0.3
# ... and when the square root of its box area reaches this many pixels of the final picture.
MIN_SIDE = 3.0
# Coordinates are kept below what OpenCV's fixed-point drawing can hold; fractions of 1/8 pixel.
_FAR = 16000
_SHIFT = 3


@dataclass(frozen=True)
class Painting:
    """A painted view in full light.

    Args:
        canvas: (h, w, 3) uint8 BGR.
        ids: (h, w) int16, row of the visible object in the arrays below plus 1, else 0 (dropped objects are 0 too).
        boxes_xyxy: (N, 4) canvas pixels, tight around the visible part.
        classes: (N,) class ids.
        tracks: (N,) numbers of the objects in their world.
        glows: (K, 6) x, y, radius in canvas pixels and BGR of shining faces.
    """

    canvas: np.ndarray
    ids: np.ndarray
    boxes_xyxy: np.ndarray
    classes: np.ndarray
    tracks: np.ndarray
    glows: np.ndarray


def paint(
    canvas: np.ndarray, camera: Camera, solids: list[Solid], foliage: list[Foliage], light: Light, oversample: int
) -> Painting:
    """Draw shadows and everything that stands up on a canvas that shows the ground already.

    Args:
        canvas: (h, w, 3) uint8 BGR, changed in place.
        camera: The view of the canvas.
        solids: Whatever is made of faces.
        foliage: Trees and bushes.
        light: Direction of sun and depth of shadows.
        oversample: Canvas pixels per pixel of the final picture.
    """
    faces = _Faces(solids, camera, light)
    crowns = _Crowns(foliage, camera, light)
    shade = _shadows(canvas, faces, crowns, solids, light)
    colors = _shaded_colors(faces, shade, light)
    ids = np.zeros(canvas.shape[:2], np.int16)
    drawn = np.zeros(len(solids), int)
    # Painter's order: what is farther from the point below the camera cannot cover what is nearer.
    order = sorted(
        [(-d, 0, i) for i, d in enumerate(faces.distance)] + [(-d, 1, i) for i, d in enumerate(crowns.distance)]
    )
    for _, kind, i in order:
        if kind == 1:
            crowns.draw(i, canvas, ids)
        elif faces.on_canvas[i]:
            number = i + 1 if solids[i].class_id >= 0 else 0
            faces.draw(i, canvas, ids, colors, number)
            if number:
                x0, y0, x1, y1 = faces.window(i)
                drawn[i] = np.count_nonzero(ids[y0:y1, x0:x1] == number)
    return _visible(canvas, ids, faces, solids, drawn, light, oversample)


class _Faces:
    """All faces of all solids, projected at once."""

    def __init__(self, solids: list[Solid], camera: Camera, light: Light) -> None:
        counts = np.array([len(s.mesh.vertices) for s in solids], int)
        poses = np.array([(s.x, s.y, s.heading) for s in solids], float).reshape(-1, 3)
        x, y, heading = np.repeat(poses, counts, axis=0).T
        local = np.concatenate([s.mesh.vertices for s in solids] or [np.zeros((0, 3))])
        cos, sin = np.cos(heading), np.sin(heading)
        world = np.stack(
            [x + local[:, 0] * cos - local[:, 1] * sin, y + local[:, 0] * sin + local[:, 1] * cos, local[:, 2]], 1
        )
        self.pixels, _ = camera.project(world)
        self.fixed = np.round((np.clip(self.pixels, -_FAR, _FAR) - 0.5) * (1 << _SHIFT)).astype(np.int32)
        slant = light.sun[:2] / light.sun[2]
        cast = np.concatenate([world[:, :2] - world[:, 2:] * slant, np.zeros((len(world), 1))], 1)
        cast_pixels, _ = camera.project(cast)
        self.cast = np.round(np.clip(cast_pixels, -_FAR, _FAR)).astype(np.int32)
        self.vertex_starts = np.concatenate([[0], np.cumsum(counts)])
        face_counts = np.array([len(s.mesh.colors) for s in solids], int)
        self.face_starts = np.concatenate([[0], np.cumsum(face_counts)])
        offsets = self.vertex_starts[:-1]
        self.starts = np.concatenate([s.mesh.starts[:-1] + o for s, o in zip(solids, offsets)] or [np.zeros(0, int)])
        self.ends = np.concatenate([s.mesh.starts[1:] + o for s, o in zip(solids, offsets)] or [np.zeros(0, int)])
        self.colors = np.concatenate([s.mesh.colors for s in solids] or [np.zeros((0, 3))])
        self.glow = np.concatenate([s.mesh.glow for s in solids] or [np.zeros(0, bool)])
        self.owner = np.repeat(np.arange(len(solids)), face_counts)
        corner = world[self.starts]
        normal = np.cross(world[self.starts + 1] - corner, world[self.starts + 2] - corner)
        length = np.maximum(np.linalg.norm(normal, axis=1), 1e-9)
        self.normal = normal / length[:, None]
        self.front = np.einsum("ij,ij->i", normal, camera.position - corner) > 0
        self._bounds(solids, world, camera)

    def _bounds(self, solids: list[Solid], world: np.ndarray, camera: Camera) -> None:
        width, height = camera.size_wh
        cuts = self.vertex_starts[:-1]
        if not len(solids):
            self.low = self.high = np.zeros((0, 2))
            self.on_canvas, self.distance = np.zeros(0, bool), np.zeros(0)
            return
        self.low = np.minimum.reduceat(self.pixels, cuts)
        self.high = np.maximum.reduceat(self.pixels, cuts)
        self.on_canvas = np.all((self.high > 0) & (self.low < (width, height)), axis=1)
        away = np.hypot(*(world[:, :2] - camera.position[:2]).T)
        nearest = np.minimum.reduceat(away, cuts)
        centre = np.array([np.hypot(s.x - camera.position[0], s.y - camera.position[1]) for s in solids])
        # A building stands behind whatever is nearer than its nearest corner; small things go by their centre.
        self.distance = np.where([s.fixed for s in solids], nearest, centre)

    def window(self, i: int) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 of the part of the canvas that solid i can cover."""
        x0, y0 = np.floor(self.low[i] - 1).astype(int).clip(0)
        x1, y1 = np.ceil(self.high[i] + 2).astype(int).clip(0)
        return int(x0), int(y0), int(x1), int(y1)

    def draw(self, i: int, canvas: np.ndarray, ids: np.ndarray, colors: list[list[float]], number: int) -> None:
        """Paint the front faces of solid i in the order in which it was built."""
        for f in range(self.face_starts[i], self.face_starts[i + 1]):
            if self.front[f]:
                points = self.fixed[self.starts[f] : self.ends[f]]
                cv2.fillConvexPoly(canvas, points, colors[f], cv2.LINE_8, _SHIFT)
                cv2.fillConvexPoly(ids, points, number, cv2.LINE_8, _SHIFT)


class _Crowns:
    """All balls of all plants, projected at once."""

    def __init__(self, foliage: list[Foliage], camera: Camera, light: Light) -> None:
        counts = np.array([len(plant.balls) for plant in foliage], int)
        balls = np.concatenate([plant.balls for plant in foliage] or [np.zeros((0, 4))])
        self.colors = np.concatenate([plant.colors for plant in foliage] or [np.zeros((0, 3))]).tolist()
        self.starts = np.concatenate([[0], np.cumsum(counts)])
        pixels, scale = camera.project(balls[:, :3])
        radius = balls[:, 3] * scale
        width, height = camera.size_wh
        inside = (pixels > -radius[:, None]).all(1) & (pixels < np.array([width, height]) + radius[:, None]).all(1)
        self.discs = _discs(pixels, radius)
        self.inside = inside.tolist()
        slant = light.sun[:2] / light.sun[2]
        cast = np.concatenate([balls[:, :2] - balls[:, 2:3] * slant, np.zeros((len(balls), 1))], 1)
        cast_pixels, cast_scale = camera.project(cast)
        cast_radius = balls[:, 3] * cast_scale
        seen = (cast_pixels > -cast_radius[:, None]).all(1) & (
            cast_pixels < np.array([width, height]) + cast_radius[:, None]
        ).all(1)
        self.cast = _discs(cast_pixels[seen], cast_radius[seen])
        # A crown hangs over what stands below it: it comes after everything down to its near edge.
        self.distance = [
            float(np.hypot(*(p.balls[0, :2] - camera.position[:2])) - p.balls[:, 3].max() * 2) for p in foliage
        ]

    def draw(self, i: int, canvas: np.ndarray, ids: np.ndarray) -> None:
        """Paint plant i; it covers whatever it is in front of."""
        for k in range(self.starts[i], self.starts[i + 1]):
            if self.inside[k]:
                x, y, radius = self.discs[k]
                cv2.circle(canvas, (x, y), radius, self.colors[k], -1)
                cv2.circle(ids, (x, y), radius, 0, -1)


def _discs(pixels: np.ndarray, radius: np.ndarray) -> list[list[int]]:
    return np.round(np.column_stack([np.clip(pixels, -_FAR, _FAR), np.maximum(radius, 1)])).astype(int).tolist()


def _shadows(canvas: np.ndarray, faces: _Faces, crowns: _Crowns, solids: list[Solid], light: Light) -> np.ndarray:
    """Darken the ground; returns for each solid the share of light (M,) that fixed things leave it."""
    if light.shadow < 0.02:
        return np.ones(len(solids))
    mask = np.zeros(canvas.shape[:2], np.uint8)
    for x, y, radius in crowns.cast:
        cv2.circle(mask, (x, y), radius, 255, -1)
    _cast(mask, faces, [i for i, solid in enumerate(solids) if solid.fixed])
    shade = _shade_at(mask, faces, solids, light)
    _cast(mask, faces, [i for i, solid in enumerate(solids) if not solid.fixed])
    soft = cv2.blur(mask, (5, 5))
    factor = cv2.convertScaleAbs(soft, alpha=-0.5 * light.shadow, beta=128)
    # Open sky lights a shadow blue: its blue channel stays a little brighter.
    blue = cv2.convertScaleAbs(soft, alpha=-0.42 * light.shadow, beta=128)
    cv2.multiply(canvas, cv2.merge([blue, factor, factor]), dst=canvas, scale=1 / 128)
    return shade


def _cast(mask: np.ndarray, faces: _Faces, rows: list[int]) -> None:
    """Add the shadows of some solids, each as one hull."""
    for i in rows:
        outline = faces.cast[faces.vertex_starts[i] : faces.vertex_starts[i + 1]]
        cv2.fillConvexPoly(mask, cv2.convexHull(outline), 255)


def _shade_at(mask: np.ndarray, faces: _Faces, solids: list[Solid], light: Light) -> np.ndarray:
    height, width = mask.shape
    centre = ((faces.low + faces.high) / 2).astype(int)
    x, y = centre[:, 0].clip(0, width - 1), centre[:, 1].clip(0, height - 1)
    covered = (mask[y, x] > 0) & ~np.array([s.fixed for s in solids], bool)
    return np.where(covered, 1 - 0.8 * light.shadow, 1.0)


def _shaded_colors(faces: _Faces, shade: np.ndarray, light: Light) -> list[list[float]]:
    lambert = np.maximum(0.0, faces.normal @ light.sun) / light.sun[2]
    factor = (light.ambient + (1 - light.ambient) * np.minimum(lambert, 1.4)) * shade[faces.owner]
    return np.minimum(faces.colors * factor[:, None], 255).tolist()


def _visible(
    canvas: np.ndarray,
    ids: np.ndarray,
    faces: _Faces,
    solids: list[Solid],
    drawn: np.ndarray,
    light: Light,
    oversample: int,
) -> Painting:
    boxes, classes, tracks = [], [], []
    rows = np.zeros(len(solids) + 1, np.int16)
    height, width = ids.shape
    for i in np.flatnonzero(drawn).tolist():
        x0, y0, x1, y1 = faces.window(i)
        seen = ids[y0:y1, x0:x1] == i + 1
        full = np.prod(faces.high[i] - faces.low[i])
        inside = np.prod(np.minimum(faces.high[i], (width, height)) - np.maximum(faces.low[i], 0))
        if np.count_nonzero(seen) / drawn[i] * inside / full < MIN_VISIBLE:
            continue
        across, down = np.flatnonzero(seen.any(0)), np.flatnonzero(seen.any(1))
        box = (x0 + across[0], y0 + down[0], x0 + across[-1] + 1, y0 + down[-1] + 1)
        if (box[2] - box[0]) * (box[3] - box[1]) < (MIN_SIDE * oversample) ** 2:
            continue
        boxes.append(box)
        classes.append(solids[i].class_id)
        tracks.append(solids[i].track)
        rows[i + 1] = len(boxes)
    return Painting(
        canvas,
        rows[ids],
        np.array(boxes, float).reshape(-1, 4),
        np.array(classes, int),
        np.array(tracks, int),
        _glows(faces, solids) if light.lamps_on else np.zeros((0, 6)),
    )


def _glows(faces: _Faces, solids: list[Solid]) -> np.ndarray:
    """Shining faces that look at the camera: vehicles only when they drive, lamps always."""
    on = np.array([s.class_id < 0 or s.moving for s in solids], bool)
    rows = np.flatnonzero(faces.glow & faces.front & on[faces.owner] & faces.on_canvas[faces.owner])
    glows = []
    for f in rows:
        points = faces.pixels[faces.starts[f] : faces.ends[f]]
        spread = (points.max(0) - points.min(0)).mean() / 2
        color = faces.colors[f]
        glows.append([*points.mean(0), spread, *color])
    return np.array(glows).reshape(-1, 6)
