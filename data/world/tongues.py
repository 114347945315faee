"""A few kinds of question in German, French and Spanish, answered in the language they are asked in."""

from dataclasses import dataclass

import numpy as np

from mmbridge.data.world.scene import Scene
from mmbridge.data.world.vocabulary import COLOURS, SHAPES


@dataclass(frozen=True, slots=True)
class Tongue:
    """Words in the order of the English ones in ``vocabulary``; a form has one ``{}``."""

    colours: tuple[str, ...]
    shapes: tuple[str, ...]
    places: tuple[str, ...]
    numbers: tuple[str, ...]
    yes_no: tuple[str, str]
    colour_at: str
    shape_at: str
    how_many: str
    any_of_colour: str


_TONGUES = (
    Tongue(
        ("rot", "grün", "blau", "gelb", "lila", "orange", "rosa", "türkis"),
        ("kreis", "quadrat", "dreieck", "stern", "kreuz", "herz", "ring", "raute"),
        (
            "oben links", "oben", "oben rechts", "links", "in der mitte", "rechts",
            "unten links", "unten", "unten rechts",
        ),
        ("null", "eins", "zwei", "drei", "vier"),
        ("ja", "nein"),
        "welche farbe hat das objekt {}?",
        "welche form hat das objekt {}?",
        "wie viele objekte gibt es?",
        "ist etwas {}?",
    ),
    Tongue(
        ("rouge", "vert", "bleu", "jaune", "violet", "orange", "rose", "cyan"),
        ("cercle", "carré", "triangle", "étoile", "croix", "cœur", "anneau", "losange"),
        (
            "en haut à gauche", "en haut", "en haut à droite", "à gauche", "au centre", "à droite",
            "en bas à gauche", "en bas", "en bas à droite",
        ),
        ("zéro", "un", "deux", "trois", "quatre"),
        ("oui", "non"),
        "de quelle couleur est l'objet {}?",
        "quelle forme a l'objet {}?",
        "combien d'objets y a-t-il?",
        "y a-t-il quelque chose de couleur {}?",
    ),
    Tongue(
        ("rojo", "verde", "azul", "amarillo", "morado", "naranja", "rosa", "cian"),
        ("círculo", "cuadrado", "triángulo", "estrella", "cruz", "corazón", "anillo", "rombo"),
        (
            "arriba a la izquierda", "arriba", "arriba a la derecha", "a la izquierda", "en el centro", "a la derecha",
            "abajo a la izquierda", "abajo", "abajo a la derecha",
        ),
        ("cero", "uno", "dos", "tres", "cuatro"),
        ("sí", "no"),
        "¿de qué color es el objeto {}?",
        "¿qué forma tiene el objeto {}?",
        "¿cuántos objetos hay?",
        "¿hay algo de color {}?",
    ),
)  # fmt: skip


def ask(scene: Scene, random: np.random.Generator) -> tuple[str, str]:
    """A question about a scene in one of the languages, and its answer."""
    tongue = _TONGUES[random.integers(len(_TONGUES))]
    thing = scene.objects[random.integers(len(scene.objects))]
    place = tongue.places[thing.place]
    match int(random.integers(4)):
        case 0:
            return tongue.colour_at.format(place), tongue.colours[COLOURS.index(thing.colour)]
        case 1:
            return tongue.shape_at.format(place), tongue.shapes[SHAPES.index(thing.shape)]
        case 2:
            return tongue.how_many, tongue.numbers[len(scene.objects)]
        case _:
            held = {t.colour for t in scene.objects}
            truth = bool(random.integers(2))
            options = sorted(held if truth else set(COLOURS) - held)
            colour = options[random.integers(len(options))]
            return tongue.any_of_colour.format(tongue.colours[COLOURS.index(colour)]), tongue.yes_no[not truth]
