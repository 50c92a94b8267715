"""`llamabox bench`: how fast a server answers, as its clients see it."""
