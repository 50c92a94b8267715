"""Processes that read what strangers wrote: chat templates, grammars, pictures and recordings.

`trial.py` is the side of the process that asks, `inside.py` the side of the one that may die of a question, `frames.py`
what passes between them, `lines.py` how most of it is written. `doors.py` keeps the latter side from everything else.
`lane.py` has several processes of one kind.
"""
