"""The batching loop: schedule, execute, update. Reaches C only through the Runner seam."""
