"""JSON schemas as people's libraries write them, in the words that can be followed."""
