"""Names: of recipes, for the shell and for loading; of parts, for text such as ``AnalyticELBO(Pathwise(4))``.

A name is looked up in the tables of this package and nowhere else: neither a command line nor a model file can name
a module to import. Importing this package imports no JAX, so that listing recipes is instant.
"""

from ravine.registry.catalogue import STUDIES, load, made, reading, recipe, recipes, study
from ravine.registry.grammar import parse
from ravine.registry.names import parts, signature
from ravine.registry.words import describe, headline

__all__ = [
    "STUDIES",
    "describe",
    "headline",
    "load",
    "made",
    "parse",
    "parts",
    "reading",
    "recipe",
    "recipes",
    "signature",
    "study",
]
