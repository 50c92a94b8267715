// Vercel's AI SDK over its provider for servers like OpenAI's.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, generateObject, generateText, stepCountIs, streamObject, streamText, tool } from "ai";
import { z } from "zod";

import { BOTH, FREE, INTRODUCTION, KEY, MODEL, ONE, REPORT, RESULTS, SCRIPTED, THINK, equal, run } from "./report.mjs";

const provider = (url, supportsStructuredOutputs) =>
  createOpenAICompatible({ name: "llamabox", baseURL: `${url}/v1`, apiKey: KEY, includeUsage: true, supportsStructuredOutputs });
const model = provider(SCRIPTED, false)(MODEL);
const free = provider(FREE, true)(MODEL);
const GetTime = z.object({ zone: z.enum(["CET", "UTC"]) });
const tools = {
  get_weather: tool({
    description: "The weather of a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async () => RESULTS.get_weather,
  }),
  get_time: tool({ description: "The time in a zone.", inputSchema: GetTime, execute: async () => RESULTS.get_time }),
};
const asked = { model, tools, stopWhen: stepCountIs(4), maxRetries: 0, temperature: 0 };
const CALLS = [
  ["get_weather", { city: "Paris" }],
  ["get_time", { zone: "CET" }],
];
const question = { prompt: "What time is it?", maxRetries: 0, maxOutputTokens: 200 };

function check(steps, text) {
  equal(steps[0].toolCalls.map((call) => [call.toolName, call.input]), CALLS);
  equal(steps.map((step) => step.finishReason), ["tool-calls", "stop"]);
  equal(text, REPORT);
}

await run({
  "generateText with tools": async () => {
    const { steps, text } = await generateText({ ...asked, prompt: BOTH });
    check(steps, text);
  },
  "streamText with tools": async () => {
    const stream = streamText({ ...asked, prompt: BOTH, onError: ({ error }) => { throw error; } });
    let text = "";
    for await (const part of stream.textStream) {
      text += part;
    }
    equal(text, REPORT);
    check(await stream.steps, await stream.text);
    equal((await stream.totalUsage).outputTokens > 10, true);
  },
  "text before a call": async () => {
    const { steps } = await generateText({ ...asked, prompt: ONE });
    equal([steps[0].text, steps[0].toolCalls.length], [INTRODUCTION, 1]);
  },
  "thoughts": async () => {
    const plain = await generateText({ model, prompt: THINK, maxRetries: 0 });
    equal([plain.text, plain.reasoningText], ["Four.", "Two and two."]);
    const stream = streamText({ model, prompt: THINK, maxRetries: 0 });
    equal([await stream.text, await stream.reasoningText], ["Four.", "Two and two."]);
  },
  "generateObject": async () => {
    const { object } = await generateObject({ ...question, model: free, schema: GetTime });
    equal(GetTime.safeParse(object).success, true);
  },
  "streamObject": async () => {
    const stream = streamObject({ ...question, model: free, schema: GetTime });
    let last;
    for await (const partial of stream.partialObjectStream) {
      last = partial;
    }
    equal(GetTime.safeParse(last).success, true);
    equal(await stream.object, last);
  },
  "generateText with an object as output": async () => {
    const { output } = await generateText({ ...question, model: free, output: Output.object({ schema: GetTime }) });
    equal(GetTime.safeParse(output).success, true);
  },
  "a tool that is chosen": async () => {
    for (const toolChoice of ["required", { type: "tool", toolName: "get_time" }]) {
      const only = { get_time: tool({ inputSchema: GetTime }) };
      const { toolCalls } = await generateText({ ...question, model: free, tools: only, toolChoice });
      equal(toolCalls[0].toolName, "get_time");
    }
  },
});
