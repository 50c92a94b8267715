"""llama.cpp's lookup: drafts from counts of the tokens that followed n-grams."""
