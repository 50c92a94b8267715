"""OpenAI's image routes, and the routes about a server that draws."""
