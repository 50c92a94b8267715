"""Processes that read what strangers wrote: chat templates, grammars.

`trial.py` is the side of the process that asks, `inside.py` the side of the one that may die of a question, `frames.py`
what passes between them. `doors.py` keeps the latter from everything else.
"""
