"""What this machine, or the container around the process, has to give: processors and memory."""
