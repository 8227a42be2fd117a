// What examples/clients/node sees of a worker, as one JSON object: node_client.mjs TARGET FOLDER.
import { existsSync, readFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

import { Client } from "../../examples/clients/node/snakepit-client.js";

const [target, folder] = process.argv.slice(2);
const worker = new Client(target);

async function until(path, text) {
  while (!existsSync(path) || !readFileSync(path, "utf8").includes(text)) await sleep(3);
  return true;
}

async function failure(promise) {
  try {
    await promise;
  } catch ({ status, kind, type }) {
    return [status, kind ?? null, type ?? null];
  }
}

const tools = await worker.tools();
const value = { a: [1, 2.5, null, true, "ü"], b: { c: [] } };

const items = [];
for await (const item of worker.stream("count", { stop: 100 })) items.push(item);

const first = [];
for await (const item of worker.stream("count", { stop: 1e9, path: `${folder}/stream` })) {
  if (first.push(item) === 3) break;
}
const closed = await until(`${folder}/stream`, "closed");

const giveUp = new AbortController();
const sleeping = failure(
  worker.execute("sleep", { path: `${folder}/sleep` }, { signal: giveUp.signal }),
);
await until(`${folder}/sleep`, "begun");
giveUp.abort();
const never = AbortSignal.abort();

async function refusal(make) {
  try {
    await make();
  } catch (error) {
    return error.name;
  }
}

const unlike = [new Date(0), 10n, new Map([[1, 2]]), Buffer.from("abc"), () => 1, Symbol("s")];

const saw = {
  names: Object.keys(tools).sort(),
  required: tools.add.parameters.required,
  add: await worker.execute("add", { left: 1, right: 2 }),
  echo: await worker.execute("echo", { value }),
  sessions: [
    await worker.execute("remember", { value: 1 }, { session: "s" }),
    await worker.execute("remember", { value: 2 }, { session: "s" }),
  ],
  items,
  first,
  closed,
  cancelled: await sleeping,
  ended: await until(`${folder}/sleep`, "ended"),
  failed: await failure(worker.execute("fail")),
  unknown: await failure(worker.execute("ad")),
  late: await failure(worker.execute("sleep", { path: `${folder}/late` }, { timeout: 50 })),
  unlike: await Promise.all(unlike.map((value) => refusal(() => worker.execute("echo", { value })))),
  left_out: await worker.execute("echo", { value: { a: undefined, b: [undefined] } }),
  never: [
    await refusal(() => worker.execute("echo", {}, { signal: never })),
    await refusal(() => worker.stream("count", { stop: 1 }, { signal: never }).next()),
  ],
  after: await worker.execute("add", { left: 1 }),
};

// It closes while it waits for an answer; the tool reads until the pipe is closed.
const answer = worker.execute("open_and_add", { path: `${folder}/fifo` });
const pipe = await open(`${folder}/fifo`, "w"); // once the tool has opened it
worker.close();
const another = new Client(target);
await another.tools(); // the worker has heard of it by then
await pipe.close();
saw.parting = await answer.catch((error) => error.message);
another.close();
console.log(JSON.stringify(saw));
