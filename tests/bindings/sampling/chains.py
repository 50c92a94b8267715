"""Sampler chains of two makes: ours, and of nothing but libllama's own samplers."""

from __future__ import annotations

from llamabox.bindings.context import Context
from llamabox.bindings.sampling.sampler import ChainBuilder, SamplerChain

Steps = tuple[tuple[object, ...], ...]


def chain(context: Context, steps: Steps) -> SamplerChain:
    builder = ChainBuilder(context.native, context.model.vocab)
    for name, *arguments in steps:
        builder.add(str(name), *arguments)
    return builder.build()


def libllama_chain(context: Context, steps: Steps) -> SamplerChain:
    """For llama_sampler_sample() only, which shows a chain the whole row."""
    *before, (name, *arguments) = steps
    if name != "dist":
        return chain(context, steps)
    made = chain(context, tuple(before))
    lib = context.native.lib
    lib.llama_sampler_chain_add(made.handle, lib.llama_sampler_init_dist(*arguments))
    return made
