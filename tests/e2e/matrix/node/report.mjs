// Runs the checks of one client. Nothing of llamabox is here.

import { isDeepStrictEqual } from "node:util";

export const [SCRIPTED, FREE] = process.argv.slice(2); // addresses: says a script, does as it is asked
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
