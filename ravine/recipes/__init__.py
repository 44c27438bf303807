"""One published system, one file: a recipe says which parts."""
