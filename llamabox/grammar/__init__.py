"""GBNF and JSON schemas as constraints over llguidance. Compiled by text workers alone."""
