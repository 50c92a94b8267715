"""`llamabox doctor`: what was built, what is here, what does not fit, and what to do about it. Loads no native code."""
