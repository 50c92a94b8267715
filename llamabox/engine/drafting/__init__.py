"""Guesses at what a sequence says next, which one decode verifies together."""
