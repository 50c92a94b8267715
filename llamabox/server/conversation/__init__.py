"""From a body with messages to a prompt and the form of its answer: what every API that has conversations shares."""
