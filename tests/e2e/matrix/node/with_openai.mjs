// OpenAI's package for JavaScript: plain, streamed, by its helpers.

import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

import { BOTH, FREE, INTRODUCTION, KEY, MODEL, ONE, REPORT, RESULTS, SCRIPTED, equal, run } from "./report.mjs";

const client = (url) => new OpenAI({ baseURL: `${url}/v1`, apiKey: KEY, maxRetries: 0 });
const completions = client(SCRIPTED).chat.completions;
const GetTime = z.object({ zone: z.enum(["CET", "UTC"]) });
const TOOLS = [
  zodFunction({ name: "get_weather", parameters: z.object({ city: z.string() }), function: () => RESULTS.get_weather }),
  zodFunction({ name: "get_time", parameters: GetTime, function: () => RESULTS.get_time }),
];
const asked = { model: MODEL, tools: TOOLS, temperature: 0 };
const CALLS = [
  ["get_weather", { city: "Paris" }],
  ["get_time", { zone: "CET" }],
];

const WAYS = {
  plain: async (body) => (await completions.create(body)).choices[0],
  streamed: async (body) => (await completions.stream(body).finalChatCompletion()).choices[0],
  parsed: async (body) => (await completions.parse(body)).choices[0],
};

async function conversation(ask) {
  const messages = [{ role: "user", content: BOTH }];
  const first = await ask({ ...asked, messages });
  equal(first.finish_reason, "tool_calls");
  const { tool_calls: calls } = first.message;
  equal(calls.map((call) => [call.function.name, JSON.parse(call.function.arguments)]), CALLS);
  messages.push(first.message);
  for (const call of calls) {
    messages.push({ role: "tool", tool_call_id: call.id, content: RESULTS[call.function.name] });
  }
  const second = await ask({ ...asked, messages });
  equal([second.finish_reason, second.message.content], ["stop", REPORT]);
}

await run({
  "two turns, plain": () => conversation(WAYS.plain),
  "two turns, streamed": () => conversation(WAYS.streamed),
  "two turns, parsed": () => conversation(WAYS.parsed),
  "tools are run by the client": async () => {
    for (const stream of [false, true]) {
      const runner = completions.runTools({ ...asked, stream, messages: [{ role: "user", content: ONE }] });
      equal(await runner.finalContent(), REPORT);
      equal(runner.messages.map((message) => message.role), ["user", "assistant", "tool", "assistant"]);
    }
  },
  "the chunks of a stream": async () => {
    const body = { ...asked, stream: true, stream_options: { include_usage: true } };
    const chunks = [];
    for await (const chunk of await completions.create({ ...body, messages: [{ role: "user", content: ONE }] })) {
      chunks.push(chunk);
    }
    const deltas = chunks.flatMap((chunk) => chunk.choices.map((choice) => choice.delta));
    equal(deltas.map((delta) => delta.content ?? "").join(""), INTRODUCTION);
    const calls = deltas.flatMap((delta) => delta.tool_calls ?? []);
    equal(calls.filter((call) => call.id !== undefined).length, 1);
    equal(JSON.parse(calls.map((call) => call.function.arguments).join("")), { city: "Paris" });
    equal(chunks.at(-1).choices, []);
    equal(chunks.at(-1).usage.completion_tokens > 10, true);
  },
  "a value of a schema": async () => {
    const format = zodResponseFormat(GetTime, "get_time");
    const messages = [{ role: "user", content: "What time is it?" }];
    const body = { model: MODEL, messages, response_format: format, max_tokens: 64 };
    const free = client(FREE).chat.completions;
    const plain = (await free.parse(body)).choices[0].message.parsed;
    const streamed = (await free.stream(body).finalChatCompletion()).choices[0].message.parsed;
    equal([plain, streamed].map((value) => GetTime.safeParse(value).success), [true, true]);
  },
});
