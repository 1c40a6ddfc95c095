"""How the models of the case study are trained, exported and measured."""
