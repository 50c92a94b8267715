// Runs the checks of one client. Nothing of llamabox is here.

import { setTimeout } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";

// Addresses of servers: says a script; does as it is asked; has one slot, and a place for one to wait.
export const [SCRIPTED, FREE, SMALL] = process.argv.slice(2);
export const KEY = "none";
export const MODEL = "demo";
export const ONE = "What is the weather in Paris?";
export const BOTH = "Tell me both.";
export const THINK = "Now think.";
export const REPORT = "Rain falls in Paris today.";
export const INTRODUCTION = "I look.";
export const RESULTS = { get_weather: "Rain.", get_time: "Noon." };

export function equal(found, expected) {
  if (!isDeepStrictEqual(found, expected)) {
    throw new Error(`${JSON.stringify(found)} in place of ${JSON.stringify(expected)}`);
  }
}

// The statuses of the replies to what a client sends through the `fetch` beside them; `seen` is called with each.
export function watched(seen = () => {}) {
  const statuses = [];
  const through = async (...asked) => {
    const reply = await fetch(...asked);
    statuses.push(reply.status);
    seen(reply.status);
    return reply;
  };
  return { statuses, fetch: through };
}

// What `ask` makes the client throw, which must be of the class.
export async function thrown(kind, ask) {
  try {
    await ask();
  } catch (error) {
    if (error instanceof kind) {
      return error;
    }
    throw error;
  }
  throw new Error(`no ${kind.name}`);
}

// Whether a client is told `status` once the small server is full, and one that tries again is answered. `begin` asks
// for a stream without end, with options of a request; `ask` for something short, with options of a client.
export async function comesBack(status, begin, ask) {
  const controller = new AbortController();
  const leave = () => controller.abort();
  await begin({ signal: controller.signal });
  const waiting = begin({ signal: controller.signal }).catch(() => {});
  while (!/requests_deferred 1/.test(await (await fetch(`${SMALL}/metrics`)).text())) {
    await setTimeout(20);
  }
  const refused = watched();
  const error = await ask({ maxRetries: 0, fetch: refused.fetch }).catch((error) => error);
  equal([refused.statuses, error.status], [[status], status]);
  const patient = watched((told) => told === status && leave());
  await ask({ maxRetries: 5, fetch: patient.fetch });
  equal([patient.statuses[0], patient.statuses.at(-1)], [status, 200]);
  await waiting;
  return error;
}

// A line for each check; the exit status is 1 where one failed.
export async function run(checks) {
  let nFailed = 0;
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check();
      console.log(`ok   ${name}`);
    } catch (error) {
      nFailed += 1;
      console.log(`FAIL ${name}: ${error.message}`);
      console.error(error);
    }
  }
  process.exitCode = nFailed ? 1 : 0;
}
