"""OpenAI's image routes, and what a server that draws tells of itself."""
