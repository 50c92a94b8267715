"""Values of arguments, as models write them, in JSON."""
