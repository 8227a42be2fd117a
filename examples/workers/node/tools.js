// The tools of this worker: an object of `{ description, parameters, run }`, by name.
//
// `run(params, context)` is a function, async or not; a generator, async or not, is a stream.
// `parameters`: name → JSON Schema; one without `default` is required; `type` is checked.
// `context`: `id`; `signal`, aborted when the host cancels the call; `timeoutS`, the time it has;
// `progress(done, total, message)` tells the caller how far it is; `sessionId`, or null, and
// `session`, a Map in which the next calls of the session find what this one puts there;
// `callHost(name, params, { signal })`, a promise of what that host tool of the caller's gives.

import { spawnSync } from "node:child_process";
import { setTimeout as delay } from "node:timers/promises";

const text = { type: "string" };
const number = { type: "number" };
const integer = { type: "integer" };

let greeting = "Hello";

export class OutOfLuckError extends RangeError {
  name = "OutOfLuckError";
}

export const tools = {
  echo: {
    description: "Give the value back",
    parameters: { value: {} },
    run: ({ value }) => value,
  },
  add: {
    description: "a + b",
    parameters: { a: number, b: { ...number, default: 1 } },
    run: ({ a, b }) => a + b,
  },
  greet: {
    description: "A greeting, as `initialize` was told",
    parameters: { name: text },
    run: ({ name }) => `${greeting}, ${name}!`,
  },
  pid: { description: "The id of this process", parameters: {}, run: () => process.pid },
  kind: {
    description: "What JavaScript calls the value",
    parameters: { value: {} },
    run: ({ value }) => value?.constructor.name ?? String(value),
  },

  // Pass the signal on, and a cancelled call is over at once.
  sleep: {
    description: "Wait, without keeping anything else from running",
    parameters: { seconds: number },
    run: ({ seconds }, { signal }) => delay(seconds * 1000, "slept well", { signal }),
  },
  // This one never looks at it: the host ends the process once `cancel_grace` is over.
  spin: {
    description: "Compute, and hear nothing meanwhile",
    parameters: { seconds: number },
    run({ seconds }) {
      for (const end = Date.now() + seconds * 1000; Date.now() < end;);
    },
  },

  work: {
    description: "So many steps, each of which is told",
    parameters: { steps: integer, ms: { ...number, default: 0 } },
    async run({ steps, ms }, { signal, progress }) {
      for (let step = 1; step <= steps; step += 1) {
        progress(step, steps, `step ${step}`);
        if (ms > 0) await delay(ms, null, { signal });
      }
      return steps;
    },
  },

  ask: {
    description: "What a host tool says",
    parameters: { name: text, params: { type: "object", default: {} } },
    run: ({ name, params }, { callHost }) => callHost(name, params),
  },
  askAll: {
    description: "Ask so many times at once",
    parameters: { name: text, times: integer },
    run: ({ name, times }, { callHost }) =>
      Promise.all(Array.from({ length: times }, (_, number) => callHost(name, { number }))),
  },
  askInTime: {
    description: "Give the host call up after so long, and go on",
    parameters: { name: text, ms: number },
    run: ({ name, ms }, { callHost }) =>
      callHost(name, {}, { signal: AbortSignal.timeout(ms) }).catch((error) => error.name),
  },

  remember: {
    description: "All that this session was told",
    parameters: { value: {} },
    run({ value }, { session }) {
      session.set("told", [...(session.get("told") ?? []), value]);
      return session.get("told");
    },
  },

  // Inputs are iterated with `for await`: each item comes when it is asked for.
  total: {
    description: "The sum of an input's items",
    parameters: { numbers: {} },
    async run({ numbers }) {
      let sum = 0;
      for await (const number of numbers) sum += number;
      return sum;
    },
  },
  first: {
    description: "The first items of an input",
    parameters: { items: {}, count: integer },
    async run({ items, count }) {
      const found = [];
      for await (const item of items) if (found.push(item) >= count) break;
      return found;
    },
  },
  doubled: {
    description: "Twice each number of an input",
    parameters: { numbers: {} },
    async *run({ numbers }) {
      for await (const number of numbers) yield 2 * number;
    },
  },

  count: {
    description: "The numbers from 0",
    parameters: { until: integer },
    *run({ until }) {
      for (let i = 0; i < until; i += 1) yield i;
    },
  },
  watch: {
    description: "One item, then silence until cancelled",
    parameters: {},
    async *run(_, { signal }) {
      try {
        yield "watching";
        await delay(2 ** 30, null, { signal });
      } finally {
        await delay(10); // clean-up may take its time; the call has ended when it has
        console.log("stopped watching"); // into the host's log
      }
    },
  },

  fail: {
    description: "Throw an error with a cause",
    parameters: { message: text },
    run({ message }) {
      throw new OutOfLuckError(message, { cause: new TypeError("the cause") });
    },
  },
  shell: {
    description: "Run a command; what it prints goes where ours goes, to the host's log",
    parameters: { command: text },
    run: ({ command }) => spawnSync("sh", ["-c", command], { stdio: "inherit" }).status,
  },
  crash: {
    description: "Leave the host without an answer",
    parameters: { code: { ...integer, default: 1 }, signal: { ...text, default: "" } },
    run: ({ code, signal }) => (signal ? process.kill(process.pid, signal) : process.exit(code)),
  },
};

/** Before the first call, with the `adapter_args` of the pool; what it throws fails the start. */
export function initialize(word = greeting) {
  if (typeof word !== "string") throw new TypeError("a greeting is a string");
  greeting = word;
}

/** After the last call. */
export function cleanup() {
  console.log("cleaned up");
}
