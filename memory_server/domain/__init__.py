"""Pure formulas and plans of the memory server: no I/O, only the standard library and numpy."""
