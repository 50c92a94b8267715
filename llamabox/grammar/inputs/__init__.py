"""Grammars that clients give for the inputs of their tools, and the same over the text of a JSON string."""
