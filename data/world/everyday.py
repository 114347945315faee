"""The part of the corpus that is not about pictures: sounds, motion, speech, numbers, common knowledge.

Each function draws one quiz. Descriptions of sounds, of motion and of what a speaker says are worded as the later
encoders will need them.
"""

from mmbridge.data.world.draw import Random, pick
from mmbridge.data.world.quiz import Quiz, answered
from mmbridge.data.world.vocabulary import COLOURS, NUMBERS, SHAPES

_TONES = ("tone", "sweep", "pulse", "noise", "click", "bell")
_PITCHES = ("low", "high")
_LEVELS = ("quiet", "loud")
_DIRECTIONS = ("left to right", "right to left", "top to bottom", "bottom to top")
_ORDER = ("first", "second", "third")

_PEOPLE = ("anna", "ben", "clara", "david", "emma", "frank", "grace", "henry", "maria", "peter", "sara", "tom")
_ROOMS = ("kitchen", "bedroom", "garden", "office", "hall", "bathroom", "garage", "living room")
_THINGS = (
    "light", "door", "window", "radio", "heater", "fan", "lamp", "television", "oven", "alarm", "curtain", "camera",
    "book", "table", "chair", "cup", "bottle", "phone", "key", "bag", "clock", "coat", "letter", "ticket",
)  # fmt: skip
_FOODS = ("bread", "milk", "apples", "cheese", "rice", "tea", "coffee", "soup", "eggs", "butter", "water", "cake")
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
_TOWNS = ("london", "paris", "berlin", "rome", "madrid", "vienna", "oslo", "lisbon", "athens", "dublin")
_WEATHER = ("sunny", "rainy", "cold", "warm", "windy", "cloudy", "foggy", "dry")
_ANIMALS = ("dog", "cat", "horse", "bird", "fish", "cow", "sheep", "mouse", "bear", "lion", "duck", "frog")
_VERBS = ("bring", "take", "find", "open", "close", "clean", "move", "sell", "buy", "carry", "hide", "paint")
_ADJECTIVES = ("old", "new", "big", "little", "good", "bad", "dark", "bright", "heavy", "light", "fast", "slow")

_OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("up", "down"), ("left", "right"), ("fast", "slow"), ("loud", "quiet"),
    ("open", "closed"), ("light", "dark"), ("old", "new"), ("full", "empty"), ("early", "late"), ("high", "low"),
    ("wet", "dry"), ("hard", "soft"), ("above", "below"), ("first", "last"), ("good", "bad"), ("day", "night"),
)  # fmt: skip
_COLOUR_OF = (
    ("grass", "green"), ("the sky", "blue"), ("snow", "white"), ("coal", "black"), ("a lemon", "yellow"),
    ("blood", "red"), ("an elephant", "grey"), ("chocolate", "brown"), ("a carrot", "orange"), ("a flamingo", "pink"),
    ("a plum", "purple"), ("the sun", "yellow"), ("milk", "white"), ("a strawberry", "red"), ("a leaf", "green"),
)  # fmt: skip
_CORNERS = (("triangle", "three"), ("square", "four"), ("circle", "zero"), ("diamond", "four"), ("star", "five"))
_SAYS = (("dog", "barks"), ("cat", "meows"), ("cow", "moos"), ("duck", "quacks"), ("bird", "sings"), ("lion", "roars"))


def _quiz(random: Random, told: str, asked: list[tuple[str, str]], most: int = 5) -> Quiz:
    """A description and up to ``most`` of the questions about it; now and then two share a conversation."""
    chosen = [answered(*asked[which]) for which in random.permutation(len(asked))[:most]]
    if random.random() < 0.3:
        chosen = [chosen[0] + chosen[1], *chosen[2:]]
    return Quiz(told, tuple(chosen))


def _sound(random: Random) -> tuple[str, str, str, str]:
    """(description, kind, pitch, level) of one sound."""
    kind, pitch, level = pick(random, *_TONES), pick(random, *_PITCHES), pick(random, *_LEVELS)
    return f"a {level} {pitch} {kind}", kind, pitch, level


def sounds(random: Random) -> Quiz:
    """One to three sounds in a row: which, in what order, how many, how high, how loud, rising or falling."""
    draws = [_sound(random) for _ in range(int(random.integers(1, 4)))]
    names = [told for told, *_ in draws]
    joined = ", then ".join(names)
    told = (
        f"{joined}.",
        f"you hear {joined}.",
        " ; ".join(f"{k} {p} {level}" for _, k, p, level in draws),
        " . ".join(f"{_ORDER[i]}: {name}" for i, name in enumerate(names)),
    )[random.integers(4)]
    which = int(random.integers(len(draws)))
    _, kind, pitch, level = draws[which]
    wanted = pick(random, *_TONES)
    asked = [
        ("describe the sound.", f"{joined}."),
        ("what do you hear?", f"{joined}."),
        ("how many sounds are there?", NUMBERS[len(draws)]),
        (f"is the {_ORDER[which]} sound high or low?", pitch),
        (f"is the {_ORDER[which]} sound loud or quiet?", level),
        (f"what is the {_ORDER[which]} sound?", kind),
        ("what comes last?", draws[-1][1]),
        (f"is there a {wanted}?", "yes" if wanted in [k for _, k, *_ in draws] else "no"),
        (f"can you hear a {wanted}?", "yes" if wanted in [k for _, k, *_ in draws] else "no"),
    ]
    if random.random() < 0.3:
        way = pick(random, "rising", "falling")
        told = f"a {way} sweep."
        asked = [
            ("is it rising or falling?", way),
            ("describe the sound.", f"a {way} sweep."),
            ("does the pitch go up?", "yes" if way == "rising" else "no"),
        ]
    return _quiz(random, told, asked)


def motion(random: Random) -> Quiz:
    """One or two objects that move, appear, vanish or collide: what, which way, in which order."""
    name = f"{pick(random, *COLOURS)} {pick(random, *SHAPES)}"
    way = pick(random, *_DIRECTIONS)
    other = f"{pick(random, *COLOURS)} {pick(random, *SHAPES)}"
    match int(random.integers(3)):
        case 0:
            told = (f"a {name} moves from {way}.", f"the {name} goes {way}.", f"{name} , {way}")[random.integers(3)]
            asked = [
                ("which way does it move?", way),
                ("in which direction does the object move?", way),
                ("what moves?", f"a {name}"),
                ("describe the video.", f"a {name} moves from {way}."),
                (f"does it move from {way}?", "yes"),
                ("how many objects move?", "one"),
            ]
        case 1:
            told = (f"first a {name} appears, then a {other}.", f"{name} , then {other}")[random.integers(2)]
            asked = [
                ("what appears first?", f"a {name}"),
                ("what comes last?", f"a {other}"),
                ("describe the video.", f"first a {name} appears, then a {other}."),
                ("how many objects appear?", "two"),
                (f"does the {name} appear before the {other}?", "yes" if name != other else "no"),
                (f"does the {other} appear before the {name}?", "no"),
            ]
        case _:
            hit = bool(random.integers(2))
            told = f"a {name} and a {other} move towards each other. " + (
                "they collide with a click." if hit else "they pass and do not touch."
            )
            asked = [
                ("do they collide?", "yes" if hit else "no"),
                ("is there a click?", "yes" if hit else "no"),
                ("describe the video.", told),
                ("what happens?", "they collide." if hit else "they pass."),
            ]
    return _quiz(random, told, asked)


def _saying(random: Random) -> str:
    """One everyday sentence."""
    who, thing, room = pick(random, *_PEOPLE), pick(random, *_THINGS), pick(random, *_ROOMS)
    number = NUMBERS[random.integers(1, 13)]
    forms = (
        f"turn {pick(random, 'on', 'off')} the {thing} in the {room}",
        f"please {pick(random, *_VERBS)} the {pick(random, *_ADJECTIVES)} {thing}",
        f"call {who} at {number} on {pick(random, *_DAYS)}",
        f"{who} and {pick(random, *_PEOPLE)} are in the {room}",
        f"the weather in {pick(random, *_TOWNS)} is {pick(random, *_WEATHER)} today",
        f"i would like {number} cups of {pick(random, *_FOODS)}",
        f"we need {pick(random, *_FOODS)} and {pick(random, *_FOODS)} from the shop",
        f"my {pick(random, *_ANIMALS)} is {pick(random, *_ADJECTIVES)} and {pick(random, *_ADJECTIVES)}",
        f"set the {thing} to {number}",
        f"where is the {pick(random, *_ADJECTIVES)} {thing}",
        f"{who} will {pick(random, *_VERBS)} the {thing} in {pick(random, *_MONTHS)}",
        f"the train to {pick(random, *_TOWNS)} leaves at {number}",
        f"there are {number} {pick(random, *_ANIMALS)}s in the {room}",
        f"{pick(random, *COLOURS)} {pick(random, *SHAPES)} number {number}",
        " ".join(NUMBERS[random.integers(10)] for _ in range(int(random.integers(2, 7)))),
        " ".join(
            pick(random, *_THINGS, *_ANIMALS, *_VERBS, *_ADJECTIVES, *_FOODS) for _ in range(int(random.integers(2, 6)))
        ),
    )
    return forms[random.integers(len(forms))]


def speech(random: Random) -> Quiz:
    """Something said, and instructions to write it down or to say what was in it."""
    said = _saying(random)
    told = (f"the speaker says: {said}", said, f"speech: {said}", f"a voice: {said}")[random.integers(4)]
    words = said.split()
    named = pick(random, *_THINGS, *_FOODS, *_PEOPLE) if random.random() < 0.5 else words[random.integers(len(words))]
    asked = [
        ("write down what is said.", said),
        ("what does the speaker say?", said),
        ("transcribe the speech.", said),
        ("repeat this.", said),
        ("what is the first word?", words[0]),
        ("what is the last word?", words[-1]),
        (f"does the speaker say {named}?", "yes" if named in words else "no"),
    ]
    return _quiz(random, told, asked)


_DESCRIBE = (
    "describe the picture.", "describe the image.", "what is in the picture?", "what does the image show?",
    "write a caption.", "what can you see?",
)  # fmt: skip


def numbers(random: Random) -> Quiz:
    """Digits and small numbers: their names, order, parity, size and simple sums."""
    n, m = (int(k) for k in random.integers(0, 10, 2))
    digit = (NUMBERS[n], str(n))[random.integers(2)]
    told = (
        f"a handwritten digit: {digit}", f"the digit {digit}", f"{digit}", f"the number {digit} is written",
        f"{digit} {digit}", f"digit {NUMBERS[n]} , {n}",
    )[random.integers(6)]  # fmt: skip
    asked = [
        ("what digit is it?", NUMBERS[n]),
        ("which number is this?", NUMBERS[n]),
        ("read the digit.", NUMBERS[n]),
        ("write the number as a numeral.", str(n)),
        (_DESCRIBE[random.integers(len(_DESCRIBE))], f"the digit is {NUMBERS[n]}."),
        ("is it odd or even?", "odd" if n % 2 else "even"),
        ("is it even?", "no" if n % 2 else "yes"),
        ("is it odd?", "yes" if n % 2 else "no"),
        ("is it greater than five?", "yes" if n > 5 else "no"),
        ("is it less than five?", "yes" if n < 5 else "no"),
        (f"is it greater than {NUMBERS[m]}?", "yes" if n > m else "no"),
        (f"is it less than {NUMBERS[m]}?", "yes" if n < m else "no"),
        (f"is it {NUMBERS[m]}?", "yes" if n == m else "no"),
        ("what number comes next?", NUMBERS[n + 1]),
        ("what number comes after it?", NUMBERS[n + 1]),
    ]
    if random.random() < 0.25:
        told = f"{NUMBERS[n]} and {NUMBERS[m]}"
        asked = [
            ("what is the sum?", NUMBERS[n + m]),
            ("which is greater?", NUMBERS[max(n, m)]),
            ("which is smaller?", NUMBERS[min(n, m)]),
            ("are they the same?", "yes" if n == m else "no"),
        ]
    return _quiz(random, told, asked)


def knowledge(random: Random) -> Quiz:
    """What everyone knows: opposites, colours of things, days, corners of shapes, animals; and how to follow orders."""
    pair = _OPPOSITES[random.integers(len(_OPPOSITES))]
    a, b = pair if random.random() < 0.5 else pair[::-1]
    thing, colour = _COLOUR_OF[random.integers(len(_COLOUR_OF))]
    day = int(random.integers(7))
    month = int(random.integers(12))
    shape, corners = _CORNERS[random.integers(len(_CORNERS))]
    animal, sound = _SAYS[random.integers(len(_SAYS))]
    word = pick(random, *_THINGS, *_FOODS, *_ANIMALS)
    times = int(random.integers(2, 5))
    listed = [pick(random, *_THINGS, *_FOODS, *_ANIMALS, *_TOWNS) for _ in range(int(random.integers(2, 6)))]
    options = (
        (f"what is the opposite of {a}?", b),
        (f"what colour is {thing}?", colour),
        (f"which day comes after {_DAYS[day]}?", _DAYS[(day + 1) % 7]),
        (f"which day comes before {_DAYS[day]}?", _DAYS[(day - 1) % 7]),
        (f"which month comes after {_MONTHS[month]}?", _MONTHS[(month + 1) % 12]),
        (f"how many corners does a {shape} have?", corners),
        (f"what does a {animal} do?", f"it {sound}."),
        (f"say {word} {NUMBERS[times]} times.", " ".join([word] * times)),
        (f"how many words are here: {' '.join(listed)}", NUMBERS[len(listed)]),
        (f"repeat: {' '.join(listed)}", " ".join(listed)),
        (f"say this backwards: {' '.join(listed)}", " ".join(listed[::-1])),
        (f"make a list of {' '.join(listed)}", "\n".join(f"- {item}" for item in listed)),
        (f"spell {word}.", " ".join(word)),
        (f"count to {NUMBERS[times]}.", " ".join(NUMBERS[1 : times + 1])),
        ("hello.", "hello, how can i help you?"),
        ("thank you.", "you are welcome."),
    )
    question, answer = options[random.integers(len(options))]
    return Quiz("", (answered(question, answer),))
