"""The composition root: the modules that know every concrete class and wire them, one for each thing to do."""
