"""Stage scripts, the shipped recipes, and the scripts that train the embedded world."""

if __name__ != "mmbridge.recipes":
    raise ImportError("import this package as mmbridge.recipes, not recipes")
