"""Commands. Nothing imports this package."""

if __name__ != "penstock.cli":
    raise ImportError("import penstock.cli: this folder is no package of its own")
