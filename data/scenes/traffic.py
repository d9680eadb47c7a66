"""Who is there: vehicles on lanes and in parking places, people, bicycles, and things that only look like them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from yolo_kd.data.scenes.layout import Layout, Slot
from yolo_kd.data.scenes.mesh import Mesh, Solid
from yolo_kd.data.scenes.people import bicycle, person
from yolo_kd.data.scenes.roads import Track
from yolo_kd.data.scenes.scenery import LARGE_THINGS, SMALL_THINGS
from yolo_kd.data.scenes.vehicles import VEHICLES, container, trailer
from yolo_kd.data.scenes.zones import LAWN, LOT, PAVEMENT

CLASSES = ("car", "truck", "bus", "person", "bicycle")
NOTHING, CAR, TRUCK, BUS, PERSON, BICYCLE = range(-1, 5)

# Shares of car, truck and bus among moving vehicles, by setting: cars are many, buses few.
_MIX: dict[str, tuple[float, float, float]] = {
    "urban": (0.81, 0.10, 0.09),
    "suburb": (0.84, 0.09, 0.07),
    "highway": (0.76, 0.19, 0.05),
    "industrial": (0.60, 0.34, 0.06),
    "carpark": (0.88, 0.06, 0.06),
    "rural": (0.78, 0.14, 0.08),
}


@dataclass(frozen=True)
class Actor:
    """One thing that may carry a label and may move.

    Args:
        mesh: Its shape.
        class_id: Index into CLASSES, -1 for a distractor.
        x, y, heading: Where it stands, unless it follows a track.
        track: The path that it follows, or None.
        start: Metres along the track at time 0.
        aside: Metres to the left of the track.
    """

    mesh: Mesh
    class_id: int
    x: float
    y: float
    heading: float
    track: Track | None = None
    start: float = 0.0
    aside: float = 0.0

    def at(self, seconds: float, number: int) -> Solid:
        """Where it is at a time; `number` identifies it in this world."""
        x, y, heading = self.x, self.y, self.heading
        moving = self.track is not None and self.track.speed > 0
        if self.track is not None and moving:
            x, y, heading = self.track.pose(self.start + self.track.speed * seconds, self.aside)
        label = number if self.class_id >= 0 else -1
        return Solid(self.mesh, x, y, heading, self.class_id, label, moving=moving and self.class_id <= BUS)


class Crowd:
    """Puts actors where there is room for them; `actors` has those that found a place, in a fixed order."""

    def __init__(self, rng: np.random.Generator, layout: Layout) -> None:
        self._rng = rng
        self._layout = layout
        self.actors: list[Actor] = []

    def place(
        self,
        mesh: Mesh,
        class_id: int,
        pose: tuple[float, float, float],
        margin: float,
        track: Track | None = None,
        start: float = 0.0,
        aside: float = 0.0,
    ) -> bool:
        """Add an actor if its ground outline, `margin` metres wider all around, is free."""
        x, y, heading = pose
        (x0, y0, _), (x1, y1, _) = mesh.extent
        corners = np.array(
            [
                [x0 - margin, y0 - margin],
                [x1 + margin, y0 - margin],
                [x1 + margin, y1 + margin],
                [x0 - margin, y1 + margin],
            ]
        )
        cos, sin = np.cos(heading), np.sin(heading)
        if not self._layout.zones.claim(corners @ np.array([[cos, sin], [-sin, cos]]) + (x, y)):
            return False
        self.actors.append(Actor(mesh, class_id, x, y, heading, track, start, aside))
        return True

    def traffic(self, busy: float) -> None:
        """Vehicles on the lanes; `busy` 0-1 shortens the gaps."""
        rng = self._rng
        mix = np.cumsum(_MIX[self._layout.setting])
        for track in self._layout.tracks("drive"):
            s = float(rng.uniform(0, 15))
            while s < track.length - 16:
                class_id = int(np.searchsorted(mix, rng.random() * mix[-1]))
                aside = float(rng.normal(0, 0.18))
                x, y, heading = track.pose(s, aside)
                if self._open(x, y):
                    mesh = VEHICLES[CLASSES[class_id]](rng)
                    self.place(mesh, class_id, (x, y, heading), 0.25, track, s, aside)
                    s += float(mesh.extent[1, 0])
                s += 4.0 + float(rng.exponential(4.0 + 38.0 * (1 - busy)))
        for track in self._layout.tracks("cycle"):
            self._along(track, BICYCLE, float(rng.uniform(18, 60)), 0.2)

    def parked(self, full: float) -> None:
        """Vehicles at kerbs and in parking places, a share `full` of which is taken."""
        rng = self._rng
        for track in self._layout.tracks("kerb"):
            for s in np.arange(float(rng.uniform(3, 8)), track.length - 4, 5.9):
                if rng.random() < full * 0.8:
                    class_id = TRUCK if rng.random() < 0.05 else CAR
                    x, y, heading = track.pose(float(s), float(rng.normal(0, 0.1)))
                    if self._open(x, y):
                        turned = heading + (np.pi if rng.random() < 0.1 else 0.0) + float(rng.normal(0, 0.02))
                        self.place(VEHICLES[CLASSES[class_id]](rng), class_id, (x, y, turned), 0.08)
        for slot in self._layout.slots:
            if rng.random() < full and self._open(slot.x, slot.y):
                self._fill_slot(slot)

    def people(self, busy: float) -> None:
        """Walkers, groups, people at zebras and between parked cars, and bicycles ridden and parked."""
        rng = self._rng
        for track in self._layout.tracks("walk"):
            self._along(track, PERSON, 12.0 + 60.0 * (1 - busy), 0.3)
            if rng.random() < 0.3:
                self._along(track, BICYCLE, 60.0, 0.3)
        zones = self._layout.zones
        for zone, most in ((PAVEMENT, 6), (LOT, 4), (LAWN, 3)):
            for x, y in zones.sample(rng, zone, int(rng.integers(0, 1 + int(most * busy * 1.3)))):
                for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
                    spot = (float(x + rng.normal(0, 0.5)), float(y + rng.normal(0, 0.5)), float(rng.uniform(-3.2, 3.2)))
                    self.place(person(rng), PERSON, spot, 0.05)
        for x, y, across in self._layout.zebras:
            for _ in range(int(rng.integers(0, 4))):
                u, v = rng.uniform(-6, 6), rng.uniform(-1.2, 1.2)
                spot = (
                    x + u * np.cos(across) - v * np.sin(across),
                    y + u * np.sin(across) + v * np.cos(across),
                    across,
                )
                self.place(person(rng), PERSON, spot, 0.05)
        for x, y in zones.sample(rng, PAVEMENT, int(rng.integers(0, 3))):
            heading = float(rng.uniform(-3.2, 3.2))
            for i in range(int(rng.choice([1, 1, 2, 4]))):
                spot = (float(x - i * 0.75 * np.sin(heading)), float(y + i * 0.75 * np.cos(heading)), heading)
                self.place(bicycle(rng, ridden=False), BICYCLE, spot, 0.0)

    def clutter(self, much: float) -> None:
        """Street furniture on pavements and lots, boulders and containers on open ground."""
        rng = self._rng
        zones = self._layout.zones
        for x, y in zones.sample(rng, PAVEMENT, int(rng.integers(2, 5 + int(14 * much)))):
            self._thing(SMALL_THINGS[rng.integers(len(SMALL_THINGS))](rng), float(x), float(y))
        for zone in (LOT, LAWN):
            for x, y in zones.sample(rng, zone, int(rng.integers(0, 2 + int(5 * much)))):
                things = LARGE_THINGS if rng.random() < 0.6 else SMALL_THINGS
                self._thing(things[rng.integers(len(things))](rng), float(x), float(y))

    def _thing(self, mesh: Mesh, x: float, y: float) -> None:
        heading = float(self._rng.choice([0.0, np.pi / 2]) + self._rng.normal(0, 0.15))
        self.place(mesh, NOTHING, (x, y, heading), 0.15)

    def _fill_slot(self, slot: Slot) -> None:
        rng = self._rng
        heading = slot.heading + float(rng.normal(0, 0.03)) + (np.pi if rng.random() < 0.25 else 0.0)
        pose = (slot.x + float(rng.normal(0, 0.12)), slot.y + float(rng.normal(0, 0.2)), heading)
        if not slot.yard:
            self.place(VEHICLES["car"](rng), CAR, pose, 0.05)
            return
        kind = int(rng.choice(5, p=[0.42, 0.06, 0.20, 0.20, 0.12]))
        if kind == 2:
            self.place(trailer(rng), NOTHING, pose, 0.1)
        elif kind == 3:
            self.place(container(rng), NOTHING, pose, 0.1)
        else:
            class_id = (TRUCK, BUS, NOTHING, NOTHING, CAR)[kind]
            self.place(VEHICLES[CLASSES[class_id]](rng), class_id, pose, 0.1)

    def _along(self, track: Track, class_id: int, spacing: float, jitter: float) -> None:
        rng = self._rng
        s = float(rng.exponential(spacing))
        while s < track.length - 2:
            aside = float(rng.normal(0, jitter))
            pose = track.pose(s, aside)
            if self._open(pose[0], pose[1]):
                mesh = person(rng) if class_id == PERSON else bicycle(rng, ridden=True)
                self.place(mesh, class_id, pose, 0.1, track, s, aside)
            s += 1.2 + float(rng.exponential(spacing))

    def _open(self, x: float, y: float) -> bool:
        """Whether the very spot is inside the map and free: saves building meshes that nobody would see."""
        zones = self._layout.zones
        (col, row) = zones.to_px(np.array([[x, y]]))[0].astype(int)
        height, width = zones.taken.shape
        return bool(0 <= row < height and 0 <= col < width and not zones.taken[row, col])


def populate(rng: np.random.Generator, layout: Layout, crowded: float) -> list[Actor]:
    """Everyone and everything in a layout.

    Args:
        rng: Source of all choices.
        layout: Its zone map keeps the places that are taken.
        crowded: 0 for an early Sunday, 1 for the rush hour.
    """
    crowd = Crowd(rng, layout)
    crowd.traffic(crowded)
    crowd.parked(float(rng.uniform(0.25, 0.9)))
    crowd.people(crowded if layout.setting not in ("highway", "rural") else 0.2 * crowded)
    crowd.clutter(float(rng.random()))
    return crowd.actors
