// Anthropic's package for JavaScript: plain, streamed, by its helpers.

import Anthropic, { BadRequestError, InternalServerError, NotFoundError } from "@anthropic-ai/sdk";
import { betaZodTool } from "@anthropic-ai/sdk/helpers/beta/zod";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import { z } from "zod";

import {
  BOTH, FREE, INTRODUCTION, KEY, MODEL, ONE, REPORT, RESULTS, SCRIPTED, SMALL, THINK, comesBack, equal, run, thrown,
} from "./report.mjs";

const client = (url, options) => new Anthropic({ baseURL: url, apiKey: KEY, maxRetries: 0, ...options });
const { messages } = client(SCRIPTED);
const free = client(FREE).messages;
const Weather = z.object({ city: z.string() });
const GetTime = z.object({ zone: z.enum(["CET", "UTC"]) });
const tool = (name, schema) => ({ name, input_schema: z.toJSONSchema(schema) });
const TOOLS = [tool("get_weather", Weather), tool("get_time", GetTime)];
const user = (content) => ({ role: "user", content });
const asked = { model: MODEL, max_tokens: 200, temperature: 0 };
const CALLS = [
  ["get_weather", { city: "Paris" }],
  ["get_time", { zone: "CET" }],
];
const question = { model: MODEL, max_tokens: 64, messages: [user("What time is it?")] };

const WAYS = {
  plain: (body) => messages.create(body),
  streamed: (body) => messages.stream(body).finalMessage(),
  parsed: (body) => messages.parse(body),
};

const textOf = (message) => message.content.filter((block) => block.type === "text").map((block) => block.text).join("");
const callsOf = (message) => message.content.filter((block) => block.type === "tool_use");
const charged = ({ usage }) => usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens;

async function conversation(ask) {
  const said = [user(BOTH)];
  const first = await ask({ ...asked, tools: TOOLS, messages: said });
  equal(first.stop_reason, "tool_use");
  const calls = callsOf(first);
  equal(calls.map((call) => [call.name, call.input]), CALLS);
  said.push({ role: "assistant", content: first.content });
  said.push(user(calls.map(({ id, name }) => ({ type: "tool_result", tool_use_id: id, content: RESULTS[name] }))));
  const second = await ask({ ...asked, tools: TOOLS, messages: said });
  equal([second.stop_reason, textOf(second)], ["end_turn", REPORT]);
}

await run({
  "two turns, plain": () => conversation(WAYS.plain),
  "two turns, streamed": () => conversation(WAYS.streamed),
  "two turns, parsed": () => conversation(WAYS.parsed),
  "tools are run by the client": async () => {
    const tools = [
      betaZodTool({ name: "get_weather", description: "", inputSchema: Weather, run: () => RESULTS.get_weather }),
      betaZodTool({ name: "get_time", description: "", inputSchema: GetTime, run: () => RESULTS.get_time }),
    ];
    const { beta } = client(SCRIPTED);
    const runner = beta.messages.toolRunner({ ...asked, tools, messages: [user(BOTH)], max_iterations: 4 });
    equal(textOf(await runner), REPORT);
    const texts = [];
    const streams = beta.messages.toolRunner({ ...asked, tools, messages: [user(ONE)], stream: true });
    for await (const stream of streams) {
      texts.push(textOf(await stream.finalMessage()));
    }
    equal(texts.map((text) => text.trim()), [INTRODUCTION, REPORT]);
  },
  "the events of a stream": async () => {
    const events = [];
    for await (const event of await messages.create({ ...asked, tools: TOOLS, messages: [user(ONE)], stream: true })) {
      events.push(event);
    }
    const order = events.filter((event) => event.type !== "content_block_delta").map((event) => [event.type, event.index]);
    const block = (i) => [["content_block_start", i], ["content_block_stop", i]];
    const expected = [["message_start", undefined], ...block(0), ...block(1)];
    equal(order, [...expected, ["message_delta", undefined], ["message_stop", undefined]]);
    const deltas = events.filter((event) => event.type === "content_block_delta").map((event) => event.delta);
    equal(deltas.map((delta) => delta.text ?? "").join("").trim(), INTRODUCTION);
    equal(JSON.parse(deltas.map((delta) => delta.partial_json ?? "").join("")), { city: "Paris" });
    equal(events.at(-2).delta.stop_reason, "tool_use");
  },
  "the snapshots of a stream": async () => {
    const inputs = [];
    const stream = messages.stream({ ...asked, tools: TOOLS, messages: [user(BOTH)] });
    stream.on("inputJson", (_, snapshot) => inputs.push(snapshot));
    const blocks = [];
    stream.on("contentBlock", (block) => blocks.push(block.type));
    await stream.done();
    equal([blocks, inputs.at(-1)], [["tool_use", "tool_use"], { zone: "CET" }]);
  },
  "thoughts": async () => {
    for (const ask of Object.values(WAYS)) {
      const thinking = { type: "enabled", budget_tokens: 1024 };
      const body = { ...asked, max_tokens: 2000, messages: [user(THINK)], tools: TOOLS };
      const first = await ask({ ...body, thinking });
      const [thought, text] = first.content;
      equal([thought.type, thought.thinking, thought.signature.length > 0], ["thinking", "Two and two.", true]);
      equal([text.text, first.stop_reason], ["Four.", "end_turn"]);
      const hidden = await ask({ ...body, thinking: { type: "adaptive", display: "omitted" } });
      equal(hidden.content[0].thinking, "");
      const behind = ({ content }) => ({ ...body, messages: [user(THINK), { role: "assistant", content }, user(BOTH)] });
      const counts = await Promise.all([first, hidden].map((one) => ask({ ...behind(one), thinking }).then(charged)));
      equal(counts[0], counts[1]);
    }
  },
  "a value of a schema": async () => {
    const body = { ...question, output_config: { format: zodOutputFormat(GetTime) } };
    const parsed = await free.parse(body);
    const streamed = await free.stream(body).finalMessage();
    for (const message of [parsed, streamed]) {
      equal(GetTime.safeParse(message.parsed_output).success, true);
    }
  },
  "a tool that is chosen": async () => {
    const none = { ...question, tools: TOOLS, tool_choice: { type: "none" }, max_tokens: 4 };
    equal(callsOf(await free.create(none)), []);
    for (const type of ["any", "tool"]) {
      const choice = { type, disable_parallel_tool_use: true, ...(type === "tool" ? { name: "get_time" } : {}) };
      const body = { ...question, tools: type === "any" ? [TOOLS[1]] : TOOLS, tool_choice: choice };
      for (const message of [await free.create(body), await free.stream(body).finalMessage()]) {
        equal([message.stop_reason, callsOf(message).map((call) => call.name)], ["tool_use", ["get_time"]]);
        equal(GetTime.safeParse(callsOf(message)[0].input).success, true);
      }
    }
  },
  "stop sequences, and the start of an answer": async () => {
    const said = [user("Count from one to ten."), { role: "assistant", content: "1, 2, 3," }];
    const body = { ...question, temperature: 0, messages: said, stop_sequences: ["6"] };
    for (const message of [await free.create(body), await free.stream(body).finalMessage()]) {
      equal([message.stop_reason, message.stop_sequence], ["stop_sequence", "6"]);
    }
    const cut = await free.create({ ...question, max_tokens: 3, ignore_eos: true });
    equal([cut.stop_reason, cut.usage.output_tokens], ["max_tokens", 3]);
  },
  "what is counted is what is charged": async () => {
    const call = { type: "tool_use", id: "toolu_1", name: "get_time", input: { zone: "CET" } };
    const result = { type: "tool_result", tool_use_id: "toolu_1", is_error: true, content: [{ type: "text", text: "No." }] };
    const cache_control = { type: "ephemeral" };
    const bodies = [
      { messages: [user(BOTH)] },
      { messages: [user(BOTH)], system: [{ type: "text", text: "You are brief.", cache_control }], tools: TOOLS },
      { messages: [user(BOTH), { role: "assistant", content: [call] }, user([result])], tools: TOOLS },
      { messages: [user(BOTH)], tools: TOOLS, thinking: { type: "adaptive" }, tool_choice: { type: "auto" } },
    ];
    for (const body of bodies) {
      const { input_tokens: counted } = await messages.countTokens({ model: MODEL, ...body });
      for (const ask of Object.values(WAYS)) {
        equal(charged(await ask({ ...asked, ...body })), counted);
      }
    }
  },
  "models": async () => {
    const listed = [];
    for await (const model of client(FREE).models.list()) {
      listed.push(model);
    }
    equal(listed.length, 1);
    equal([listed[0].type, (await client(FREE).models.retrieve(listed[0].id)).id], ["model", listed[0].id]);
  },
  "errors of the client's own classes": async () => {
    const wrong = await thrown(BadRequestError, () => messages.create({ ...question, max_tokens: "x" }));
    equal([wrong.status, wrong.error.error.type], [400, "invalid_request_error"]);
    equal([wrong.message.includes("max_tokens"), wrong.requestID, wrong.error.request_id], [true, wrong.requestID, wrong.requestID]);
    equal(typeof wrong.requestID, "string");
    const long = { ...question, messages: [user("word ".repeat(9000))] };
    for (const ask of Object.values(WAYS)) {
      equal(/prompt is too long: \d+ tokens > 4096 maximum/.test((await thrown(BadRequestError, () => ask(long))).message), true);
    }
    await thrown(NotFoundError, () => messages.batches.retrieve("none"));
    const pdf = { type: "document", source: { type: "base64", media_type: "application/pdf", data: "JVBERi0=" } };
    const link = { type: "document", source: { type: "url", url: "http://127.0.0.1:9/a.pdf" } };
    for (const block of [pdf, link]) {
      const body = { ...question, messages: [user([block])] };
      equal((await thrown(BadRequestError, () => messages.create(body))).message.includes("messages[0].content[0].source"), true);
    }
    const schema = { type: "object", properties: { a: { $ref: "http://127.0.0.1:9/x" } }, required: ["a"] };
    const body = { ...question, output_config: { format: { type: "json_schema", schema } } };
    equal((await thrown(BadRequestError, () => free.create(body))).message.includes("output_config.format.schema"), true);
  },
  "it comes back where the server is full": async () => {
    const endless = { ...question, max_tokens: 3000, ignore_eos: true, stream: true };
    const error = await comesBack(
      529,
      (options) => client(SMALL).messages.create(endless, options),
      (options) => client(SMALL, options).messages.create({ ...question, max_tokens: 2 }),
    );
    equal([error instanceof InternalServerError, error.error.error.type], [true, "overloaded_error"]);
  },
});
