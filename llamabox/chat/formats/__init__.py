"""How models write thoughts and tool calls: forms as data, found from what a template renders, and their readers."""
