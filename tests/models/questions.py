"""Questions about twenty things that have nothing to do with each other, each with the text that answers it."""

from __future__ import annotations

ANSWERS = {
    "What is the capital of France?": "Paris is the capital and the largest city of France.",
    "How do I boil an egg?": "Put the egg into boiling water and let it cook for six to ten minutes.",
    "Why is the sky blue?": "The air scatters the blue part of sunlight most, so the sky looks blue.",
    "How many players are in a football team?": "In football each team has eleven players on the field.",
    "What causes earthquakes?": "Earthquakes happen when plates of the Earth's crust suddenly slip along a fault.",
    "Who wrote Romeo and Juliet?": "The tragedy Romeo and Juliet was written by William Shakespeare.",
    "How do I sort a list in Python?": "In Python call sorted(values), or values.sort(), to sort a list.",
    "What do bees make honey from?": "Honey bees collect nectar from flowers and turn it into honey in the hive.",
    "How do vaccines protect against disease?": "A vaccine teaches the immune system to know a virus beforehand.",
    "How do I change a flat tire?": "Jack up the car, take off the flat tire and fit the spare wheel.",
    "What is inflation?": "Inflation is the rise of prices in an economy, which makes money worth less.",
    "How long does the Moon take to orbit the Earth?": "The Moon orbits the Earth in about 27 days.",
    "How can I learn to play the guitar?": "To learn the guitar, practise a few chords and strum slowly every day.",
    "What do penguins eat?": "Penguins catch fish, krill and squid in the sea.",
    "How do I water a cactus?": "A cactus needs little water: let the soil dry out completely between waterings.",
    "When did the Second World War end?": "World War II ended in 1945 with the surrender of Germany and Japan.",
    "How do I reset my password?": "Click on Forgot password and choose a new password by the link in the email.",
    "What is photosynthesis?": "Photosynthesis is how plants turn light, water and air into sugar.",
    "How do I remove a coffee stain from a shirt?": "Rinse the coffee stain with cold water and rub it with soap.",
    "What is the tallest mountain in the world?": "Mount Everest in the Himalayas is the highest mountain on Earth.",
}  # fmt: skip
N_DOCUMENTS = 10


def ranking_set() -> list[tuple[str, list[str], int]]:
    """Twenty times: a query, ten documents, and which of them answers it. Its place differs from query to query."""
    queries, answers = list(ANSWERS), list(ANSWERS.values())
    sets = []
    for i, query in enumerate(queries):
        right = 7 * i % N_DOCUMENTS
        others = [answers[(i + 1 + step) % len(answers)] for step in range(N_DOCUMENTS - 1)]
        sets.append((query, [*others[:right], answers[i], *others[right:]], right))
    return sets
