"""From a TextConfig to a model that answers: devices, contexts, attention, measured speed."""
