"""Drawing a scene: 96×96 RGB, every object larger than one encoder patch, edges smooth, noise seeded by the scene."""

from math import cos, pi, radians, sin

import numpy as np
from PIL import Image, ImageDraw

from mmbridge.data.world.scene import Object, Scene

SIDE = 96
"""Pixels on each side of a rendered scene."""

CELL = SIDE // 3
RADIUS = {"small": 11.0, "large": 15.0}
RGB = {
    "red": (222, 40, 40), "green": (40, 170, 60), "blue": (50, 80, 225), "yellow": (240, 220, 50),
    "purple": (140, 50, 175), "orange": (245, 140, 25), "pink": (250, 150, 200), "cyan": (50, 215, 225),
    "black": (12, 12, 12), "white": (245, 245, 245), "grey": (128, 128, 128), "brown": (100, 66, 36),
}  # fmt: skip
_OVERSAMPLE = 4

Points = list[tuple[float, float]]


def _polygon(corners: int, radius: float = 1.0, start: float = -pi / 2) -> Points:
    step = 2 * pi / corners
    return [(radius * cos(start + k * step), radius * sin(start + k * step)) for k in range(corners)]


def _star() -> Points:
    outer, inner = _polygon(5), _polygon(5, 0.42, -pi / 2 + pi / 5)
    return [point for pair in zip(outer, inner, strict=True) for point in pair]


def _heart() -> Points:
    turns = [2 * pi * k / 40 for k in range(40)]
    return [(sin(t) ** 3, -(13 * cos(t) - 5 * cos(2 * t) - 2 * cos(3 * t) - cos(4 * t)) / 16 - 0.1) for t in turns]


_ARM = 0.34
_OUTLINE: dict[str, Points] = {
    "square": [(-0.84, -0.84), (0.84, -0.84), (0.84, 0.84), (-0.84, 0.84)],
    "triangle": [(0, -1), (0.95, 0.8), (-0.95, 0.8)],
    "star": _star(),
    "cross": [
        (-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM),
        (_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM),
    ],
    "heart": _heart(),
    "diamond": [(0, -1), (0.62, 0), (0, 1), (-0.62, 0)],
}  # fmt: skip


def centre(thing: Object) -> tuple[float, float]:
    """Where an object's middle is, (x, y) in pixels."""
    return CELL * (thing.column + 0.5) + thing.shift[0], CELL * (thing.row + 0.5) + thing.shift[1]


def _coverage(thing: Object) -> Image.Image:
    """How much of each pixel of its cell the object covers: an ``L`` image of one cell, 255 where wholly covered."""
    scale, radius = _OVERSAMPLE, RADIUS[thing.size] * _OVERSAMPLE
    mask = Image.new("L", (CELL * scale, CELL * scale))
    draw = ImageDraw.Draw(mask)
    x, y = (CELL / 2 + thing.shift[0]) * scale, (CELL / 2 + thing.shift[1]) * scale
    if thing.shape in ("circle", "ring"):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        if thing.shape == "ring":
            hole = radius * 0.52
            draw.ellipse((x - hole, y - hole, x + hole, y + hole), fill=0)
    else:
        c, s = cos(radians(thing.turn)) * radius, sin(radians(thing.turn)) * radius
        draw.polygon([(x + c * px - s * py, y + s * px + c * py) for px, py in _OUTLINE[thing.shape]], fill=255)
    return mask.reduce(scale)


def _paint(thing: Object) -> np.ndarray:
    """The object's colours over its cell, (CELL, CELL, 3) in 0–255."""
    colour = np.array(RGB[thing.colour], np.float32)
    cell = np.broadcast_to(colour, (CELL, CELL, 3)).copy()
    ys, xs = np.mgrid[0:CELL, 0:CELL]
    if thing.texture == "striped":
        cell[(xs + ys) % 6 < 3] *= 0.4
    elif thing.texture == "dotted":
        dots = (xs % 6 - 2.5) ** 2 + (ys % 6 - 2.5) ** 2 < 3.2
        cell[dots] += (255 - cell[dots]) * 0.6
    return cell


def render(scene: Scene) -> Image.Image:
    """The picture of a scene: RGB, ``SIDE`` × ``SIDE``."""
    random = np.random.default_rng(scene.grain)
    canvas = np.empty((SIDE, SIDE, 3), np.float32)
    canvas[:] = RGB[scene.background]
    for thing in scene.objects:
        area = np.s_[CELL * thing.row : CELL * (thing.row + 1), CELL * thing.column : CELL * (thing.column + 1)]
        cover = np.asarray(_coverage(thing), np.float32)[..., None] / 255
        canvas[area] += cover * (_paint(thing) - canvas[area])
    canvas += random.standard_normal(canvas.shape, np.float32) * scene.noise
    return Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
