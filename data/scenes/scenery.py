"""What stands around: buildings, trees, lamp posts and street furniture. None of it carries a label."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from yolo_kd.data.scenes.mesh import Color, Foliage, Mesh, MeshBuilder, disc, pick, rectangle, tint
from yolo_kd.data.scenes.people import bicycle_rack
from yolo_kd.data.scenes.vehicles import GLASS, container, trailer

_WALLS: list[Color] = [
    (196, 206, 214),
    (150, 176, 200),
    (120, 140, 176),
    (170, 170, 168),
    (206, 214, 216),
    (110, 130, 150),
]
_FLAT_ROOFS: list[Color] = [(128, 130, 132), (96, 98, 102), (158, 160, 160), (88, 96, 110), (186, 188, 186)]
_TILES: list[Color] = [(58, 74, 140), (66, 86, 158), (72, 70, 78), (84, 90, 104), (50, 60, 108)]
_LEAVES: list[Color] = [(44, 92, 62), (36, 84, 70), (50, 104, 84), (40, 70, 50), (48, 110, 116)]


def flat_building(rng: np.random.Generator, size_xy: tuple[float, float], height: float) -> Mesh:
    """A block with a parapet, rows of windows, and boxes on the roof that look like vehicles from far."""
    hx, hy = size_xy[0] / 2, size_xy[1] / 2
    wall, roof = pick(_WALLS, rng), pick(_FLAT_ROOFS, rng)
    mesh = MeshBuilder()
    outline = rectangle((-hx, hx), (-hy, hy))
    mesh.prism(outline, outline, (0.0, height), wall, tint(wall, 0.9))
    for z in np.arange(1.2, height - 1.2, 3.0):
        _windows(mesh, hx, hy, float(z))
    mesh.plate(rectangle((-hx + 0.35, hx - 0.35), (-hy + 0.35, hy - 0.35)), height, roof)
    for _ in range(rng.integers(1, 5)):
        x, y = rng.uniform(-hx * 0.8, hx * 0.5), rng.uniform(-hy * 0.8, hy * 0.5)
        mesh.plate(rectangle((x, x + hx * 0.4), (y, y + hy * 0.3)), height, tint(roof, rng.uniform(0.88, 1.1)))
    if rng.random() < 0.5:
        for x in np.arange(-hx + 1.5, hx - 0.6, rng.uniform(1.2, 3.0)).tolist():
            mesh.plate(rectangle((x, x + 0.12), (-hy + 0.4, hy - 0.4)), height, tint(roof, 0.9))
    for _ in range(rng.integers(1, 6)):
        _on_roof(mesh, hx, hy, height, rng)
    return mesh.build()


def gabled_house(rng: np.random.Generator, size_xy: tuple[float, float], height: float) -> Mesh:
    """A house with a pitched roof along its longer side."""
    hx, hy = size_xy[0] / 2, size_xy[1] / 2
    wall, tiles = pick(_WALLS, rng), pick(_TILES, rng)
    ridge = height + 0.55 * min(hx, hy)
    mesh = MeshBuilder()
    outline = rectangle((-hx, hx), (-hy, hy))
    mesh.prism(outline, outline, (0.0, height), wall, wall)
    _windows(mesh, hx, hy, 1.0)
    ex, ey = hx + 0.4, hy + 0.4
    a, b, c, d = ((-ex, -ey, height), (ex, -ey, height), (ex, ey, height), (-ex, ey, height))
    if hx >= hy:
        p, q = (-ex, 0.0, ridge), (ex, 0.0, ridge)
        slopes = [[a, b, q, p], [c, d, p, q], [b, c, q], [d, a, p]]
    else:
        p, q = (0.0, -ey, ridge), (0.0, ey, ridge)
        slopes = [[d, a, p, q], [b, c, q, p], [a, b, p], [c, d, q]]
    for slope, tone in zip(slopes, (tiles, tiles, wall, wall)):
        mesh.face(slope, tone)
    for face, steps in ((slopes[0], 5), (slopes[1], 5)):
        for share in np.linspace(0.15, 0.85, steps):
            mesh.face(_course(face, float(share)), tint(tiles, 0.86))
    x = rng.uniform(-0.5, 0.5) * min(hx, hy)
    mesh.box((x - 0.3, x + 0.3), (x - 0.3, x + 0.3), (height, ridge + 0.6), (90, 100, 130), (60, 60, 66))
    return mesh.build()


def tree(rng: np.random.Generator, x: float, y: float, radius: float, height: float, fine: float = 1.0) -> Foliage:
    """A crown of leaf balls, darker below; one in five is thin, so that one can look through.

    `fine` above 1 gives more and smaller balls, for crowns that are seen from near.
    """
    thin = rng.random() < 0.2
    fine = max(1.0, fine)
    count = int((26 if thin else 32) * fine**1.5)
    turn, share = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.random(count))
    ball = radius * rng.uniform(0.16, 0.3, count) * (0.8 if thin else 1.15) / fine**0.65
    rise = np.sqrt(np.maximum(0.0, 1 - share**2)) * rng.uniform(0.3, 1.0, count)
    base = height - radius * 0.9
    z = base + rise * radius * 0.9
    spread = radius * share * 0.85
    balls = np.stack([x + spread * np.cos(turn), y + spread * np.sin(turn), z, ball], 1)
    shade = 0.6 + 0.55 * rise + rng.uniform(-0.16, 0.16, count)
    order = np.argsort(z, kind="stable")
    colors = np.clip(np.array(pick(_LEAVES, rng))[None] * shade[:, None], 0, 255)
    if not thin:
        core = np.array([[x, y, base, radius * 0.72]])
        return Foliage(np.concatenate([core, balls[order]]), np.concatenate([colors[:1] * 0.7, colors[order]]))
    return Foliage(balls[order], colors[order])


def bush(rng: np.random.Generator, x: float, y: float) -> Foliage:
    """Half a metre to two metres of green."""
    count, radius = 7, rng.uniform(0.35, 1.0)
    turn, share = rng.uniform(0, 2 * np.pi, count), rng.random(count)
    balls = np.stack(
        [
            x + radius * share * np.cos(turn),
            y + radius * share * np.sin(turn),
            np.linspace(0.2, radius, count),
            radius * np.linspace(0.7, 0.3, count),
        ],
        1,
    )
    colors = np.array(pick(_LEAVES, rng))[None] * np.linspace(0.7, 1.25, count)[:, None]
    return Foliage(balls, np.clip(colors, 0, 255))


def lamp_post(rng: np.random.Generator) -> tuple[Mesh, Mesh]:
    """A pole of 6 to 8 m and its arm over the road (towards local x); two meshes, as a shadow is cast as one hull."""
    height, tone = rng.uniform(6.0, 8.0), (120, 122, 120)
    pole, arm = MeshBuilder(), MeshBuilder()
    pole.box((-0.09, 0.09), (-0.09, 0.09), (0.0, height), tone, tone)
    arm.box((0.0, 1.6), (-0.06, 0.06), (height - 0.1, height), tone, tone)
    arm.box((1.2, 1.9), (-0.14, 0.14), (height - 0.15, height), (90, 90, 90), (150, 152, 150))
    arm.plate(rectangle((1.25, 1.85), (-0.1, 0.1)), height, (170, 205, 225), glow=True)
    return pole.build(), arm.build()


def bollard(rng: np.random.Generator) -> Mesh:
    """About as tall as a child and as wide as a head: the usual false person."""
    r, height = rng.uniform(0.12, 0.25), rng.uniform(0.8, 1.4)
    paint = ((60, 60, 60), (200, 200, 200), (50, 50, 190), (60, 170, 220))[rng.integers(4)]
    mesh = MeshBuilder()
    mesh.prism(disc(0, 0, r, r), disc(0, 0, r, r), (0.0, height * 0.75), tint(paint, 0.85), paint)
    mesh.prism(
        disc(0, 0, r, r), disc(0, 0, r * 0.7, r * 0.7), (height * 0.75, height), (225, 225, 225), tint(paint, 1.1)
    )
    return mesh.build()


def dustbin(rng: np.random.Generator) -> Mesh:
    """A wheelie bin, single or as a large skip."""
    large = rng.random() < 0.3
    hx, hy, height = (1.9, 0.9, 1.3) if large else (0.36, 0.3, 1.1)
    paint = ((60, 90, 50), (60, 60, 60), (140, 90, 40), (50, 160, 200))[rng.integers(4)]
    mesh = MeshBuilder()
    mesh.box((-hx, hx), (-hy, hy), (0.0, height), tint(paint, 0.8), paint)
    mesh.plate(rectangle((-hx * 0.85, hx * 0.85), (-hy * 0.8, hy * 0.8)), height, tint(paint, 0.5 if large else 0.85))
    return mesh.build()


def bench(rng: np.random.Generator) -> Mesh:
    """A wooden bench; from above a short bright bar, like a bicycle."""
    wood = tint((80, 120, 160), rng.uniform(0.7, 1.2))
    mesh = MeshBuilder()
    mesh.box((-0.9, 0.9), (-0.25, 0.2), (0.35, 0.45), tint(wood, 0.6), wood)
    mesh.box((-0.9, 0.9), (0.2, 0.27), (0.45, 0.85), tint(wood, 0.8), tint(wood, 0.9))
    return mesh.build()


def rock(rng: np.random.Generator) -> Mesh:
    """A boulder, up to the size of a small car."""
    r = rng.uniform(0.4, 1.7)
    tone = tint((122, 128, 132), rng.uniform(0.7, 1.2))
    low, high = disc(0, 0, r, r * rng.uniform(0.6, 1.0), 7), disc(0.1 * r, 0, r * 0.55, r * 0.4, 7)
    mesh = MeshBuilder()
    mesh.prism(low, high, (0.0, r * 0.8), [tint(tone, f) for f in rng.uniform(0.8, 1.1, 7)], tint(tone, 1.1))
    return mesh.build()


def planter(rng: np.random.Generator) -> Mesh:
    """A stone trough with green in it, as long as a car."""
    hx, hy = rng.uniform(0.8, 2.3), rng.uniform(0.5, 0.9)
    stone = tint((170, 174, 176), rng.uniform(0.7, 1.1))
    mesh = MeshBuilder()
    mesh.box((-hx, hx), (-hy, hy), (0.0, 0.6), tint(stone, 0.85), stone)
    mesh.plate(rectangle((-hx + 0.15, hx - 0.15), (-hy + 0.15, hy - 0.15)), 0.6, pick(_LEAVES, rng))
    return mesh.build()


def market_stall(rng: np.random.Generator) -> Mesh:
    """A striped canopy of van size."""
    hx, hy = rng.uniform(1.3, 2.6), rng.uniform(1.0, 1.5)
    paint = ((50, 50, 190), (60, 140, 60), (170, 100, 40), (60, 180, 225))[rng.integers(4)]
    mesh = MeshBuilder()
    mesh.box((-hx, hx), (-hy, hy), (1.9, 2.2), tint(paint, 0.8), paint)
    for x in np.arange(-hx + 0.35, hx - 0.3, 0.8):
        mesh.plate(rectangle((x, x + 0.4), (-hy, hy)), 2.2, (226, 228, 228))
    return mesh.build()


# Street furniture by how large an area it wants: small things stand on pavements, large ones in yards.
SMALL_THINGS: list[Callable[[np.random.Generator], Mesh]] = [bollard, bollard, dustbin, bench, bicycle_rack, planter]
LARGE_THINGS: list[Callable[[np.random.Generator], Mesh]] = [container, trailer, market_stall, rock, dustbin]


def _windows(mesh: MeshBuilder, hx: float, hy: float, z: float) -> None:
    """One row of windows on all four walls."""
    e, top = 0.02, z + 1.3
    for x in np.arange(-hx + 1.0, hx - 2.0, 3.2).tolist():
        mesh.face([(x, -hy - e, z), (x + 1.6, -hy - e, z), (x + 1.6, -hy - e, top), (x, -hy - e, top)], GLASS)
        mesh.face([(x + 1.6, hy + e, z), (x, hy + e, z), (x, hy + e, top), (x + 1.6, hy + e, top)], GLASS)
    for y in np.arange(-hy + 1.0, hy - 2.0, 3.2).tolist():
        mesh.face([(hx + e, y, z), (hx + e, y + 1.6, z), (hx + e, y + 1.6, top), (hx + e, y, top)], GLASS)
        mesh.face([(-hx - e, y + 1.6, z), (-hx - e, y, z), (-hx - e, y, top), (-hx - e, y + 1.6, top)], GLASS)


def _on_roof(mesh: MeshBuilder, hx: float, hy: float, z: float, rng: np.random.Generator) -> None:
    """A skylight, an air conditioner or a row of solar panels, somewhere on a flat roof."""
    x, y = rng.uniform(-0.75, 0.55) * hx, rng.uniform(-0.75, 0.5) * hy
    kind = rng.integers(3)
    if kind == 0:
        mesh.box((x, x + rng.uniform(1.2, 4.0)), (y, y + 1.3), (z, z + 0.3), (150, 150, 150), (190, 180, 160))
    elif kind == 1:
        tone = tint((180, 182, 182), rng.uniform(0.7, 1.2))
        mesh.box((x, x + rng.uniform(1.2, 3.0)), (y, y + rng.uniform(1.0, 1.8)), (z, z + 1.1), tint(tone, 0.8), tone)
        mesh.plate(disc(x + 0.6, y + 0.6, 0.4, 0.4, 8), z + 1.1, (70, 70, 70))
    else:
        for row in range(int(rng.integers(2, 5))):
            mesh.plate(rectangle((x, x + 3.4), (y + row * 1.4, y + row * 1.4 + 1.0)), z, (96, 58, 34))


def _course(slope: list[tuple[float, float, float]], share: float) -> list[tuple[float, float, float]]:
    """A thin strip across a roof slope (eaves a, b and ridge q, p) at `share` of its height."""
    a, b, q, p = (np.array(corner) for corner in slope)
    low, high = share, share + 0.03
    strip = (a + (p - a) * low, b + (q - b) * low, b + (q - b) * high, a + (p - a) * high)
    return [(float(s[0]), float(s[1]), float(s[2]) + 0.02) for s in strip]
