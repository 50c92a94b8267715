"""Messages to a prompt. Pure, but for the process that template.py owns."""
