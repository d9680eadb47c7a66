"""Cars, vans, lorries and buses, and the trailers and containers that are easily taken for them.

Sizes in metres are those of common European vehicles. What tells the classes apart is small on purpose: a lorry has a
gap between cab and load, a bus an even roof with hatches, a van a bonnet and no side windows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from yolo_kd.data.scenes.mesh import Color, Mesh, MeshBuilder, bevelled, rectangle, tint

GLASS: Color = (52, 44, 38)
CHASSIS: Color = (42, 40, 40)
TYRE: Color = (26, 26, 26)
HEADLAMP: Color = (235, 245, 250)
TAILLAMP: Color = (40, 30, 190)

# Shares of paint colours on the road, rounded from yearly registration statistics; BGR.
_PAINTS: list[tuple[float, Color]] = [
    (0.24, (238, 238, 236)),
    (0.16, (168, 168, 165)),
    (0.14, (96, 94, 92)),
    (0.17, (40, 38, 38)),
    (0.08, (44, 40, 168)),
    (0.09, (140, 86, 44)),
    (0.04, (70, 84, 42)),
    (0.03, (150, 190, 208)),
    (0.03, (50, 190, 235)),
    (0.02, (44, 112, 214)),
]
_LOADS: list[Color] = [(232, 232, 230), (226, 226, 222), (176, 176, 176), (150, 92, 40), (50, 46, 170), (70, 120, 60)]
_BUSES: list[Color] = [(232, 232, 232), (48, 44, 178), (60, 190, 232), (150, 96, 36), (92, 140, 64), (205, 205, 200)]


def car(rng: np.random.Generator) -> Mesh:
    """A hatchback, saloon, estate, SUV or (one in seven) a van."""
    kind = rng.choice(5, p=[0.27, 0.28, 0.14, 0.17, 0.14])
    if kind == 4:
        return _van(rng)
    length = (3.9, 4.65, 4.7, 4.6)[kind] + rng.uniform(-0.25, 0.25)
    width = (0.86, 0.91, 0.91, 0.95)[kind] + rng.uniform(-0.04, 0.04)
    height = (1.48, 1.43, 1.47, 1.72)[kind]
    paint = _paint(rng)
    x0, x1 = -length / 2, length / 2
    belt = 0.62 * height
    mesh = MeshBuilder()
    outline = bevelled((x0, x1), width, 0.38, 0.25)
    mesh.prism(
        outline, bevelled((x0 + 0.05, x1 - 0.08), width - 0.06, 0.4, 0.28), (0.22, belt), tint(paint, 0.92), paint
    )
    mesh.plate(
        rectangle((x0 + 0.27 * length, x1 - 0.06 * length), (-width * 0.7, width * 0.7)), belt, tint(paint, 1.05)
    )
    # Where the glass starts behind and how far back the roof reaches is what tells the four bodies apart.
    rear_glass, rear_roof = ((0.04, 0.13), (0.14, 0.30), (0.03, 0.08), (0.04, 0.10))[kind]
    glass = (x0 + rear_glass * length, x1 - 0.27 * length)
    roof = (x0 + rear_roof * length, x1 - 0.43 * length)
    mesh.prism(
        rectangle(glass, (-width + 0.1, width - 0.1)),
        rectangle(roof, (-width + 0.26, width - 0.26)),
        (belt, height),
        GLASS,
        paint,
    )
    if rng.random() < 0.3:
        tone = GLASS if rng.random() < 0.7 else tint(paint, 0.7)
        mesh.plate(rectangle((roof[0] + 0.35, roof[1] - 0.2), (-width + 0.42, width - 0.42)), height, tone)
    if kind >= 2 and rng.random() < 0.4:
        for y in (-width + 0.33, width - 0.33):
            mesh.plate(rectangle(roof, (y - 0.05, y + 0.05)), height, CHASSIS)
    _lamps(mesh, (x0, x1), width, belt)
    return mesh.build()


def _van(rng: np.random.Generator) -> Mesh:
    length, width, height = rng.uniform(4.9, 6.0), rng.uniform(0.95, 1.02), rng.uniform(2.0, 2.5)
    paint = _LOADS[rng.integers(3)] if rng.random() < 0.7 else _paint(rng)
    x0, x1 = -length / 2, length / 2
    mesh = MeshBuilder()
    mesh.prism(
        bevelled((x0, x1), width, 0.3, 0.08), bevelled((x0, x1 - 0.1), width, 0.35, 0.08), (0.25, 1.15), paint, paint
    )
    front = x1 - 0.75
    sides: list[Color] = [paint, GLASS, paint, tint(paint, 0.8)]
    mesh.prism(
        rectangle((x0, front), (-width, width)),
        rectangle((x0 + 0.05, front - 0.75), (-width + 0.12, width - 0.12)),
        (1.15, height),
        sides,
        tint(paint, 0.97),
    )
    if rng.random() < 0.35:
        for x in np.linspace(x0 + 0.6, front - 1.4, 4):
            mesh.plate(rectangle((x, x + 0.1), (-width + 0.2, width - 0.2)), height, tint(paint, 0.72))
    _lamps(mesh, (x0, x1), width, 1.15)
    return mesh.build()


def truck(rng: np.random.Generator) -> Mesh:
    """A rigid lorry (box, flatbed, tipper, tank) or, one in four, a tractor with its trailer."""
    long = rng.random() < 0.25
    length = rng.uniform(12.0, 15.0) if long else rng.uniform(6.2, 9.2)
    width = rng.uniform(1.18, 1.28)
    height = rng.uniform(3.2, 3.8) if long else rng.uniform(2.7, 3.5)
    x0, x1 = -length / 2, length / 2
    paint = _paint(rng)
    mesh = MeshBuilder()
    mesh.box((x0, x1 - 0.2), (-0.85, 0.85), (0.45, 0.95), CHASSIS, CHASSIS)
    cab = rng.uniform(1.7, 2.2)
    gap = rng.uniform(0.8, 1.2) if long else rng.uniform(0.25, 0.6)
    load = (x0, x1 - cab - gap)
    kind = rng.choice(4, p=[0.5, 0.2, 0.2, 0.1])
    # Painted rear to front or front to rear the two parts cannot cover each other wrongly: there is a gap between.
    _cab(mesh, (x1 - cab, x1), width, min(height - 0.1, 2.9), paint, deflector=kind == 0 and rng.random() < 0.5)
    (_box_body, _flatbed, _tipper, _tank)[kind](mesh, load, width, height, rng)
    _tail(mesh, x0, width, 0.9)
    return mesh.build()


def bus(rng: np.random.Generator) -> Mesh:
    """A city bus, a coach or (one in five) a minibus."""
    small = rng.random() < 0.2
    length = rng.uniform(6.8, 8.2) if small else rng.uniform(10.2, 12.6)
    width, height = (1.1, 2.8) if small else (1.27, rng.uniform(3.0, 3.5))
    paint = _BUSES[rng.integers(len(_BUSES))]
    roof = tint((234, 234, 232), rng.uniform(0.86, 1.02)) if rng.random() < 0.6 else tint(paint, 1.04)
    x0, x1 = -length / 2, length / 2
    mesh = MeshBuilder()
    mesh.box((x0, x1), (-width, width), (0.3, 1.3), paint, paint)
    sides: list[Color] = [GLASS, GLASS, GLASS, tint(GLASS, 1.3)]
    base, top = rectangle((x0, x1), (-width, width)), rectangle((x0 + 0.05, x1 - 0.3), (-width + 0.05, width - 0.05))
    mesh.prism(base, top, (1.3, height - 0.35), sides, paint)
    lid = rectangle((x0 + 0.1, x1 - 0.35), (-width + 0.12, width - 0.12))
    mesh.prism(top, lid, (height - 0.35, height), tint(roof, 0.94), roof)
    for share in rng.permutation([0.2, 0.5, 0.78])[: rng.integers(1, 4)]:
        x = x0 + share * length
        mesh.plate(rectangle((x - 0.42, x + 0.42), (-0.4, 0.4)), height, tint(roof, 0.74))
        mesh.plate(rectangle((x - 0.3, x + 0.3), (-0.3, 0.3)), height, tint(roof, 0.9))
    if rng.random() < 0.65:
        x = x0 + length * rng.uniform(0.05, 0.55)
        mesh.box(
            (x, x + rng.uniform(1.6, 2.6)), (-0.8, 0.8), (height, height + 0.25), tint(roof, 0.7), tint(roof, 0.86)
        )
    if rng.random() < 0.35:
        for y in (-0.82, 0.82):
            mesh.plate(rectangle((x0 + 0.5, x1 - 1.0), (y - 0.05, y + 0.05)), height, tint(roof, 0.82))
    _lamps(mesh, (x0, x1), width, 1.0)
    return mesh.build()


def trailer(rng: np.random.Generator) -> Mesh:
    """A parked trailer without a tractor: no lorry, carries no label."""
    length, width = rng.uniform(6.5, 12.5), rng.uniform(1.18, 1.28)
    x0, x1 = -length / 2, length / 2
    mesh = MeshBuilder()
    mesh.box((x0, x1 - 0.4), (-0.8, 0.8), (0.5, 0.95), CHASSIS, CHASSIS)
    (_box_body, _flatbed)[int(rng.random() < 0.35)](mesh, (x0, x1), width, rng.uniform(2.9, 3.7), rng)
    return mesh.build()


def container(rng: np.random.Generator) -> Mesh:
    """A shipping container with its corrugated roof."""
    length = 6.06 if rng.random() < 0.6 else 12.19
    paint = ((40, 60, 150), (130, 84, 36), (60, 96, 60), (120, 122, 120), (36, 92, 176))[rng.integers(5)]
    mesh = MeshBuilder()
    x0, x1, height = -length / 2, length / 2, 2.6
    mesh.box((x0, x1), (-1.22, 1.22), (0.0, height), tint(paint, 0.85), paint)
    for x in np.arange(x0 + 0.4, x1 - 0.3, 0.8):
        mesh.plate(rectangle((x, x + 0.3), (-1.1, 1.1)), height, tint(paint, 0.82))
    return mesh.build()


def _paint(rng: np.random.Generator) -> Color:
    shares = np.cumsum([share for share, _ in _PAINTS])
    _, color = _PAINTS[int(np.searchsorted(shares, rng.random() * shares[-1]))]
    return tint(color, rng.uniform(0.88, 1.12))


def _cab(mesh: MeshBuilder, x: tuple[float, float], width: float, height: float, paint: Color, deflector: bool) -> None:
    sides: list[Color] = [tint(paint, 0.95), GLASS, tint(paint, 0.95), tint(paint, 0.7)]
    mesh.box(x, (-width, width), (0.4, 1.4), paint, paint)
    mesh.prism(
        rectangle(x, (-width, width)),
        rectangle((x[0] + 0.05, x[1] - 0.3), (-width + 0.08, width - 0.08)),
        (1.4, height),
        sides,
        paint,
    )
    if deflector:
        mesh.prism(
            rectangle((x[0] + 0.1, x[1] - 0.5), (-width + 0.2, width - 0.2)),
            rectangle((x[0] + 0.1, x[0] + 0.5), (-width + 0.25, width - 0.25)),
            (height, height + 0.5),
            tint(paint, 0.85),
            paint,
        )
    _lamps(mesh, (x[0] - 99.0, x[1]), width, 1.0)


def _box_body(mesh: MeshBuilder, x: tuple[float, float], width: float, height: float, rng: np.random.Generator) -> None:
    paint = _LOADS[rng.integers(len(_LOADS))]
    mesh.box(x, (-width, width), (0.95, height), tint(paint, 0.9), paint)
    mesh.plate(rectangle((x[1] - 0.12, x[1]), (-width, width)), height, tint(paint, 0.75))
    mesh.plate(rectangle((x[0], x[0] + 0.1), (-width, width)), height, tint(paint, 0.75))
    if rng.random() < 0.4:
        for at in np.arange(x[0] + 1.0, x[1] - 0.5, rng.uniform(1.0, 1.8)):
            mesh.plate(rectangle((at, at + 0.07), (-width + 0.05, width - 0.05)), height, tint(paint, 0.88))


def _flatbed(mesh: MeshBuilder, x: tuple[float, float], width: float, _: float, rng: np.random.Generator) -> None:
    wood = tint((92, 122, 146), rng.uniform(0.75, 1.1))
    mesh.box(x, (-width, width), (0.9, 1.2), CHASSIS, wood)
    for at in np.arange(x[0] + 0.8, x[1] - 0.4, 1.1):
        mesh.plate(rectangle((at, at + 0.08), (-width + 0.05, width - 0.05)), 1.2, tint(wood, 0.8))
    if rng.random() < 0.6:
        goods = ((60, 110, 150), (150, 150, 150), (96, 140, 80), (70, 90, 170))[rng.integers(4)]
        start = rng.uniform(x[0] + 0.3, x[0] + 0.45 * (x[1] - x[0]))
        stop = rng.uniform(start + 1.0, x[1] - 0.2)
        mesh.box((start, stop), (-width + 0.25, width - 0.25), (1.2, rng.uniform(1.6, 2.4)), tint(goods, 0.8), goods)


def _tipper(mesh: MeshBuilder, x: tuple[float, float], width: float, _: float, rng: np.random.Generator) -> None:
    paint = ((60, 140, 190), (150, 150, 148), (60, 60, 170), (120, 90, 50))[rng.integers(4)]
    fill = ((92, 150, 178), (96, 108, 120), (48, 62, 78), (70, 70, 70))[rng.integers(4)]
    mesh.box(x, (-width, width), (0.9, 2.1), tint(paint, 0.85), paint)
    inner = rectangle((x[0] + 0.14, x[1] - 0.14), (-width + 0.14, width - 0.14))
    mesh.plate(inner, 2.1, tint(fill, 0.62))
    heap = rectangle((x[0] + 0.5, x[1] - 0.45), (-width + 0.35, width - 0.4))
    mesh.plate(heap, 2.1, fill)


def _tank(mesh: MeshBuilder, x: tuple[float, float], width: float, _: float, rng: np.random.Generator) -> None:
    paint = _LOADS[rng.integers(len(_LOADS))]
    low, high = bevelled(x, width * 0.95, 0.35, 0.35), bevelled((x[0] + 0.1, x[1] - 0.1), width * 0.45, 0.2, 0.2)
    mesh.prism(low, low, (0.9, 1.8), tint(paint, 0.75), paint)
    mesh.prism(low, high, (1.8, 2.8), tint(paint, 0.88), tint(paint, 1.05))
    for at in np.linspace(x[0] + 0.8, x[1] - 0.8, 3):
        mesh.plate(rectangle((at - 0.25, at + 0.25), (-0.25, 0.25)), 2.8, tint(paint, 0.6))


def _lamps(mesh: MeshBuilder, x: tuple[float, float], width: float, z: float) -> None:
    """Head lamps seen from above; the tail lamps too, unless the rear is not part of this body (x below -90)."""
    for side in (-1, 1):
        y = (side * width * 0.78 - 0.16, side * width * 0.78 + 0.16)
        mesh.plate(rectangle((x[1] - 0.28, x[1] - 0.06), y), z, HEADLAMP, glow=True)
    if x[0] > -90:
        _tail(mesh, x[0], width, z)


def _tail(mesh: MeshBuilder, x: float, width: float, z: float) -> None:
    for side in (-1, 1):
        y = (side * width * 0.8 - 0.15, side * width * 0.8 + 0.15)
        mesh.plate(rectangle((x + 0.02, x + 0.16), y), z, TAILLAMP, glow=True)


VEHICLES: dict[str, Callable[[np.random.Generator], Mesh]] = {"car": car, "truck": truck, "bus": bus}
