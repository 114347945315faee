"""``mmbridge recipes``."""

from mmbridge.cli.options import Json
from mmbridge.cli.output import show_json, show_table


def recipes(json: Json = False) -> None:
    """List the shipped recipes."""
    from mmbridge.recipe_file import load, shipped

    found = [load(name) for name in shipped()]
    if json:
        for recipe in found:
            stages = [stage.name for stage in recipe.stages]
            line = {"name": recipe.name, "about": recipe.about, "paper": recipe.paper, "stages": stages}
            show_json(line | {"variants": list(recipe.variants)})
        return
    rows = [
        (recipe.name, " ".join(stage.name for stage in recipe.stages), recipe.about, " ".join(recipe.variants))
        for recipe in found
    ]
    show_table("", ("recipe", "stages", "about", "variants"), rows)
