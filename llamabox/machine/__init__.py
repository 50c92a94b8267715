"""Processors and memory that this machine, or the container around the process, has for it."""
