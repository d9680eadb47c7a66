"""Persons, and bicycles with and without a rider."""

from __future__ import annotations

import numpy as np
from yolo_kd.data.scenes.mesh import Color, Mesh, MeshBuilder, disc, pick, rectangle, tint

_CLOTHES: list[Color] = [
    (40, 38, 40),
    (60, 46, 36),
    (225, 225, 225),
    (50, 44, 190),
    (170, 96, 40),
    (70, 130, 60),
    (60, 190, 230),
    (150, 140, 200),
    (128, 128, 130),
    (70, 90, 120),
]
_TROUSERS: list[Color] = [(36, 34, 34), (96, 60, 40), (60, 70, 84), (110, 140, 160), (120, 118, 116)]
_SKIN: list[Color] = [(140, 170, 215), (90, 120, 170), (50, 70, 110)]
_HAIR: list[Color] = [(30, 32, 40), (36, 52, 80), (90, 150, 190), (150, 150, 150), (60, 60, 190)]
_RUBBER: Color = (30, 30, 30)


def person(rng: np.random.Generator) -> Mesh:
    """Somebody standing or in mid-step, about 1.7 m tall; some carry a bag or an umbrella."""
    height = rng.uniform(1.55, 1.88)
    clothes, trousers = pick(_CLOTHES, rng), pick(_TROUSERS, rng)
    step = rng.uniform(0.0, 0.34)
    hip, neck = 0.5 * height, 0.84 * height
    mesh = MeshBuilder()
    for y, x in ((-0.1, step), (0.1, -step)):
        mesh.box((x - 0.11, x + 0.17), (y - 0.08, y + 0.08), (0.0, hip), trousers, trousers)
    swing = step * 0.8
    for y, x in ((-0.27, -swing), (0.27, swing)):
        mesh.box(
            (x - 0.07, x + 0.12), (y - 0.06, y + 0.06), (hip, 0.72 * height), tint(clothes, 0.85), pick(_SKIN, rng)
        )
    wide, deep = rng.uniform(0.25, 0.31), rng.uniform(0.15, 0.2)
    mesh.prism(disc(0, 0, deep, wide * 0.85), disc(0, 0, deep, wide), (hip, neck), tint(clothes, 0.9), clothes)
    if rng.random() < 0.06:
        cover = pick(_CLOTHES, rng)
        edge, tip = disc(0, 0, 0.52, 0.52, 8), disc(0, 0, 0.05, 0.05, 8)
        mesh.prism(
            edge, tip, (height + 0.05, height + 0.3), [tint(cover, 0.85 + 0.3 * (i % 2)) for i in range(8)], cover
        )
        return mesh.build()
    if rng.random() < 0.2:
        bag = pick(_CLOTHES, rng)
        mesh.box((-0.38, -0.14), (-0.17, 0.17), (hip + 0.1, neck - 0.05), tint(bag, 0.8), bag)
    mesh.prism(disc(0.03, 0, 0.11, 0.1), disc(0.03, 0, 0.1, 0.09), (neck, height), pick(_SKIN, rng), pick(_HAIR, rng))
    return mesh.build()


def bicycle(rng: np.random.Generator, ridden: bool) -> Mesh:
    """A bicycle of about 1.75 m; the box of a ridden one covers its rider, who carries no label of his own."""
    frame = tint(pick(_CLOTHES, rng), 1.1)
    mesh = MeshBuilder()
    for x in (-0.53, 0.53):
        mesh.box((x - 0.34, x + 0.34), (-0.035, 0.035), (0.02, 0.68), _RUBBER, _RUBBER)
    mesh.box((-0.45, 0.42), (-0.05, 0.05), (0.45, 0.85), frame, frame)
    mesh.box((0.34, 0.44), (-0.31, 0.31), (0.98, 1.04), (70, 70, 70), (110, 110, 110))
    mesh.box((-0.36, -0.1), (-0.09, 0.09), (0.9, 0.97), _RUBBER, (44, 44, 44))
    if rng.random() < 0.3:
        mesh.box((-0.8, -0.42), (-0.14, 0.14), (0.72, 0.86), (90, 110, 130), (110, 130, 150))
    if ridden:
        _rider(mesh, rng)
    return mesh.build()


def _rider(mesh: MeshBuilder, rng: np.random.Generator) -> None:
    clothes, trousers, skin = pick(_CLOTHES, rng), pick(_TROUSERS, rng), pick(_SKIN, rng)
    for y in (-0.13, 0.13):
        mesh.box((-0.22, 0.18), (y - 0.075, y + 0.075), (0.35, 0.98), trousers, trousers)
    for y in (-0.24, 0.24):
        mesh.box((0.05, 0.42), (y - 0.05, y + 0.05), (1.0, 1.14), tint(clothes, 0.85), skin)
    mesh.prism(disc(-0.16, 0, 0.2, 0.2), disc(0.06, 0, 0.24, 0.25), (0.95, 1.45), tint(clothes, 0.9), clothes)
    helmet = pick(_HAIR if rng.random() < 0.5 else _CLOTHES, rng)
    mesh.prism(disc(0.2, 0, 0.12, 0.1), disc(0.2, 0, 0.11, 0.09), (1.45, 1.72), skin, helmet)


def bicycle_rack(rng: np.random.Generator) -> Mesh:
    """Empty hoops in a row: what is left when the bicycles are gone."""
    mesh = MeshBuilder()
    tone = tint((170, 172, 172), rng.uniform(0.6, 1.1))
    for x in np.arange(rng.integers(2, 5)) * 0.8:
        mesh.box((x - 0.04, x + 0.04), (-0.45, 0.45), (0.0, 0.8), tone, tone)
    mesh.plate(rectangle((-0.3, 0.3), (-0.5, -0.45)), 0.05, tone)
    return mesh.build()
