// OpenAI's package for JavaScript and its Responses: plain, streamed, by its helpers.

import OpenAI, { BadRequestError, InternalServerError, NotFoundError } from "openai";
import { zodResponsesFunction, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

import {
  BOTH, FREE, INTRODUCTION, KEY, MODEL, ONE, REPORT, RESULTS, SCRIPTED, SMALL, THINK, comesBack, equal, run, thrown,
} from "./report.mjs";

const client = (url, options) => new OpenAI({ baseURL: `${url}/v1`, apiKey: KEY, maxRetries: 0, ...options });
const { responses } = client(SCRIPTED);
const free = client(FREE).responses;
const GetTime = z.object({ zone: z.enum(["CET", "UTC"]) });
const TOOLS = [
  zodResponsesFunction({ name: "get_weather", parameters: z.object({ city: z.string() }) }),
  zodResponsesFunction({ name: "get_time", parameters: GetTime }),
];
const asked = { model: MODEL, tools: TOOLS, temperature: 0 };
const CALLS = [
  ["get_weather", { city: "Paris" }],
  ["get_time", { zone: "CET" }],
];
const question = { model: MODEL, input: "What time is it?", max_output_tokens: 64 };

const WAYS = {
  plain: (body) => responses.create(body),
  streamed: (body) => responses.stream(body).finalResponse(),
  parsed: (body) => responses.parse(body),
};

const callsOf = (response) => response.output.filter((item) => item.type === "function_call");
const resultsOf = (calls) =>
  calls.map((call) => ({ type: "function_call_output", call_id: call.call_id, output: RESULTS[call.name] }));

async function conversation(ask) {
  const input = [{ role: "user", content: BOTH }];
  const first = await ask({ ...asked, input });
  equal(first.status, "completed");
  const calls = callsOf(first);
  equal(calls.map((call) => [call.name, JSON.parse(call.arguments)]), CALLS);
  const results = resultsOf(calls);
  const second = await ask({ ...asked, input: [...input, ...first.output, ...results] });
  equal([second.status, second.output_text], ["completed", REPORT]);
  const byId = await ask({ ...asked, input: results, previous_response_id: first.id });
  equal([byId.output_text, byId.previous_response_id], [REPORT, first.id]);
  equal(byId.usage.input_tokens, second.usage.input_tokens);
}

await run({
  "three turns, plain": () => conversation(WAYS.plain),
  "three turns, streamed": () => conversation(WAYS.streamed),
  "three turns, parsed": () => conversation(WAYS.parsed),
  "arguments are parsed by the client": async () => {
    for (const ask of [WAYS.streamed, WAYS.parsed]) {
      const calls = callsOf(await ask({ ...asked, input: BOTH }));
      equal(calls.map((call) => [call.name, call.parsed_arguments]), CALLS);
    }
  },
  "the events of a stream": async () => {
    const events = [];
    for await (const event of await responses.create({ ...asked, input: ONE, stream: true })) {
      events.push(event);
    }
    equal(events.map((event) => event.sequence_number), events.map((_, i) => i));
    const added = events.filter((event) => event.type === "response.output_item.added");
    const done = events.filter((event) => event.type === "response.output_item.done");
    equal([added, done].map((all) => all.map((event) => event.output_index)), [[0, 1], [0, 1]]);
    const told = (type) => events.filter((event) => event.type === type).map((event) => event.delta).join("");
    equal(told("response.output_text.delta"), INTRODUCTION);
    equal(JSON.parse(told("response.function_call_arguments.delta")), { city: "Paris" });
    const last = events.at(-1);
    equal([last.type, last.response.output], ["response.completed", done.map((event) => event.item)]);
  },
  "the snapshots of a stream": async () => {
    const texts = [];
    const argumentsSoFar = [];
    const stream = responses.stream({ ...asked, input: ONE });
    stream.on("response.output_text.delta", (event) => texts.push(event.snapshot));
    stream.on("response.function_call_arguments.delta", (event) => argumentsSoFar.push(event.snapshot));
    const response = await stream.finalResponse();
    equal(texts.at(-1), INTRODUCTION);
    equal(argumentsSoFar.at(-1), callsOf(response)[0].arguments);
  },
  "thoughts": async () => {
    for (const ask of Object.values(WAYS)) {
      const sealed = { include: ["reasoning.encrypted_content"], store: false };
      const first = await ask({ model: MODEL, input: THINK, temperature: 0, ...sealed });
      const [thought, message] = first.output;
      equal([thought.type, thought.content[0].text], ["reasoning", "Two and two."]);
      equal([message.content[0].text, first.output_text], ["Four.", "Four."]);
      equal(first.usage.output_tokens_details.reasoning_tokens > 0, true);
      const summed = await ask({ model: MODEL, input: THINK, temperature: 0, reasoning: { summary: "auto" } });
      equal(summed.output[0].summary, [{ type: "summary_text", text: "Two and two." }]);
      const behind = [{ role: "user", content: BOTH }];
      const again = (item) => ask({ ...asked, ...sealed, input: [{ role: "user", content: THINK }, item, message, ...behind] });
      const whole = await again(thought);
      const alone = await again({ ...thought, content: undefined });
      equal(alone.usage.input_tokens, whole.usage.input_tokens);
    }
  },
  "a response that is kept": async () => {
    const first = await responses.create({ ...asked, input: BOTH });
    equal((await responses.retrieve(first.id)).output, first.output);
    const items = await responses.inputItems.list(first.id);
    equal(items.data.map((item) => [item.role, item.content]), [["user", [{ type: "input_text", text: BOTH }]]]);
    const later = [];
    const stream = responses.stream({ response_id: first.id, starting_after: 3 });
    stream.on("event", (event) => later.push(event.sequence_number));
    equal((await stream.finalResponse()).output.map((item) => item.id), first.output.map((item) => item.id));
    equal(later[0], 4);
    await responses.delete(first.id);
    const error = await thrown(NotFoundError, () => responses.retrieve(first.id));
    equal(error.message.includes(first.id), true);
  },
  "a response in the background": async () => {
    let response = await responses.create({ ...asked, input: BOTH, background: true });
    equal(["queued", "in_progress", "completed"].includes(response.status), true);
    const events = [];
    for await (const event of await responses.retrieve(response.id, { stream: true })) {
      events.push(event);
    }
    response = await responses.retrieve(response.id);
    equal([events.at(-1).type, response.status], ["response.completed", "completed"]);
    const long = await free.create({ ...question, max_output_tokens: 2000, background: true, ignore_eos: true });
    equal((await free.cancel(long.id)).status, "cancelled");
  },
  "a value of a schema": async () => {
    const body = { ...question, text: { format: zodTextFormat(GetTime, "get_time") } };
    const parsed = await free.parse(body);
    const streamed = await free.stream(body).finalResponse();
    for (const response of [parsed, streamed]) {
      equal(GetTime.safeParse(response.output_parsed).success, true);
      equal(response.text.format.name, "get_time");
    }
  },
  "a tool that is chosen": async () => {
    const allowed = { type: "allowed_tools", mode: "required", tools: [{ type: "function", name: "get_time" }] };
    for (const choice of ["required", { type: "function", name: "get_time" }, allowed]) {
      const tools = choice === "required" ? [TOOLS[1]] : TOOLS;
      const body = { ...question, tools, tool_choice: choice, parallel_tool_calls: false };
      for (const response of [await free.create(body), await free.stream(body).finalResponse()]) {
        equal(callsOf(response).map((call) => call.name), ["get_time"]);
        equal(GetTime.safeParse(JSON.parse(callsOf(response)[0].arguments)).success, true);
      }
    }
  },
  "a custom tool": async () => {
    const format = { type: "grammar", syntax: "regex", definition: "20[0-9]{2}-0[1-9]" };
    const tool = { type: "custom", name: "set_month", format };
    const body = { ...question, tools: [tool], tool_choice: { type: "custom", name: "set_month" } };
    for (const response of [await free.create(body), await free.stream(body).finalResponse()]) {
      const [call] = response.output;
      equal([call.type, /^20[0-9]{2}-0[1-9]$/.test(call.input)], ["custom_tool_call", true]);
      const result = { type: "custom_tool_call_output", call_id: call.call_id, output: "Done." };
      const next = { ...question, tools: [tool], tool_choice: "none", max_output_tokens: 4 };
      await free.create({ ...next, input: [{ role: "user", content: "Hi" }, call, result] });
    }
  },
  "a conversation that is compacted": async () => {
    const input = [{ role: "user", content: BOTH }];
    const said = await responses.create({ ...asked, input });
    const { output, object } = await free.compact({ model: MODEL, input: [...input, ...said.output], max_output_tokens: 16 });
    equal([object, output.map((item) => item.type)], ["response.compaction", ["message", "compaction"]]);
    const next = await free.create({ ...question, input: [...output, { role: "user", content: "Go on." }] });
    equal(next.usage.input_tokens > 16, true);
  },
  "an answer that is cut off": async () => {
    const body = { ...question, max_output_tokens: 3, ignore_eos: true };
    for (const response of [await free.create(body), await free.stream(body).finalResponse()]) {
      equal([response.status, response.incomplete_details], ["incomplete", { reason: "max_output_tokens" }]);
      equal(response.usage.output_tokens, 3);
    }
  },
  "log-probabilities": async () => {
    const body = { ...question, max_output_tokens: 4, include: ["message.output_text.logprobs"], top_logprobs: 2 };
    for (const response of [await free.create(body), await free.stream(body).finalResponse()]) {
      const [{ text, logprobs }] = response.output[0].content;
      equal(logprobs.map((one) => one.token).join(""), text);
      equal(logprobs.every((one) => one.top_logprobs.length === 2), true);
    }
  },
  "tokens are counted": async () => {
    const { input_tokens: counted } = await client(SCRIPTED).responses.inputTokens.count({ ...asked, input: BOTH });
    equal((await responses.create({ ...asked, input: BOTH })).usage.input_tokens, counted);
  },
  "errors of the client's own classes": async () => {
    const wrong = await thrown(BadRequestError, () => responses.create({ ...question, max_output_tokens: "x" }));
    equal([wrong.status, wrong.param, wrong.type], [400, "max_output_tokens", "invalid_request_error"]);
    const long = { ...question, input: "word ".repeat(9000) };
    for (const ask of [WAYS.plain, WAYS.parsed]) {
      equal((await thrown(BadRequestError, () => ask(long))).type, "exceed_context_size_error");
    }
    const failed = await WAYS.streamed(long);  // agents look for this code in the events
    equal([failed.status, failed.error.code], ["failed", "context_length_exceeded"]);
    const gone = { ...question, previous_response_id: "resp_none" };
    equal((await thrown(BadRequestError, () => responses.create(gone))).param, "previous_response_id");
    await thrown(NotFoundError, () => responses.retrieve("resp_none"));
    const schema = { type: "object", properties: { a: { $ref: "http://127.0.0.1:9/x" } }, required: ["a"] };
    const text = { format: { type: "json_schema", name: "x", schema } };
    equal((await thrown(BadRequestError, () => free.create({ ...question, text }))).param, "text.format.schema");
  },
  "it comes back where the server is full": async () => {
    const endless = { ...question, max_output_tokens: 3000, ignore_eos: true, stream: true, store: false };
    const error = await comesBack(
      503,
      (options) => client(SMALL).responses.create(endless, options),
      (options) => client(SMALL, options).responses.create({ ...question, max_output_tokens: 2 }),
    );
    equal(error instanceof InternalServerError, true);
  },
});
