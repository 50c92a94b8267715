"""Grammars that keep a model to the form of its answers, in llguidance's dialect of Lark."""
