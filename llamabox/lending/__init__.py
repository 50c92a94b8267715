"""Lending this machine's device to others: who may come, a process for each, and the tensors that are kept for them."""
