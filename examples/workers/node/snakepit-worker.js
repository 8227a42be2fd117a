// A snakepit worker, written from docs/protocol.md: the life of calls and streams.
// Use: `serve(tools, { initialize, cleanup })`; see tools.js. Import this module before any other.

import { setImmediate as turn, setTimeout as delay } from "node:timers/promises";
import { inspect } from "node:util";

import { listen, send, sendValue } from "./wire.js";
import { received, takeInputs } from "./inputs.js";
import { CannotTravelError, understand } from "./values.js";

const [START, CALL, CANCEL, CREDIT, RECALL, SHUTDOWN, END_SESSION] = [1, 2, 3, 4, 5, 6, 7];
const [HELLO, READY, RESULT, FAILURE, ITEM, END, SETTLED, RETURNED, GOODBYE, PROGRESS] = [
  32, 33, 34, 35, 36, 37, 38, 39, 40, 41,
];
const [HOST_REPLY, HOST_FAILURE, HOST_CALL, HOST_CANCEL] = [8, 9, 42, 43];
const [INPUT_ITEM, INPUT_END] = [10, 11];
const VERSION = 1;
const TEXT_CHARS_MAX = 20_000; // below 64 KiB of UTF-8 whatever the text
const NAME_CHARS_MAX = 300;
const CAUSES_MAX = 8;
const MESSAGE_CHARS_MAX = 1000;
const PROGRESS_INTERVAL_MS = 20;
const FAREWELL_MS = 800; // for the running call, and for cleanup, once the host is gone

/** A call by the host. `signal` is aborted when the host cancels it. */
class Call {
  constructor(id, tool, body, numbers, timeoutS, window, sessionId = null, inputWindow = 0) {
    Object.assign(this, { id, tool, timeoutS, credit: Number(window), sessionId });
    this.session = stateOf(sessionId);
    [this.body, this.buffers] = received(body, numbers);
    [this.inputWindow, this.inputs] = [Number(inputWindow), new Map()];
    this.isStream = window > 0;
    this.controller = new AbortController();
    this.signal = this.controller.signal;
    this.wake = () => {};
  }

  /** Wait for credit, or for Cancel. */
  async mayYield() {
    while (this.credit === 0 && !this.signal.aborted)
      await new Promise((resolve) => (this.wake = resolve));
    this.credit -= 1;
    return !this.signal.aborted;
  }

  /** What tools call as `progress`. The first update is sent at once, then the latest of each interval. */
  report(done, total = null, message = null) {
    for (const number of [done, total ?? 0]) {
      if (!IS.number(number)) throw new TypeError("progress is told in numbers");
      if (!(number >= 0 && number < Infinity))
        throw new RangeError("progress is finite and not below 0");
    }
    if (message !== null && !IS.string(message)) throw new TypeError("the message is no string");
    if (this.signal.aborted || this.isOver) return;
    this.update = [Number(done), total === null ? null : Number(total), message];
    const early = (this.reportAt ?? 0) - performance.now();
    if (early <= 0) this.sendUpdate();
    else this.timer ??= setTimeout(() => this.sendUpdate(), early);
  }

  /** Also before the answer, so that the last update always arrives. */
  sendUpdate() {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (this.update === undefined || this.signal.aborted) return;
    const [done, total, message] = this.update;
    this.update = undefined;
    this.reportAt = performance.now() + PROGRESS_INTERVAL_MS;
    send(PROGRESS, this.id, done, total, message && text(message, MESSAGE_CHARS_MAX));
  }

  /**
   * What tools call as `callHost`: have the host run one of its host tools; a promise of its value.
   * It rejects with a HostToolError, and when the call is cancelled; `signal` gives up this alone.
   */
  async callHost(tool, params = {}, { signal } = {}) {
    this.signal.throwIfAborted();
    signal?.throwIfAborted();
    if (this.isOver) throw new Error("the call is over, and calls its host no more");
    const id = (lastAsked += 1);
    sendValue(HOST_CALL, [id, this.id, tool], params);
    const cancel = () => {
      if (!this.signal.aborted && asked.has(id)) send(HOST_CANCEL, id, this.id);
      asked.get(id)?.reject((this.signal.aborted ? this.signal : signal).reason);
    };
    try {
      return await new Promise((resolve, reject) => {
        asked.set(id, { resolve, reject, call: this });
        for (const one of [this.signal, signal]) one?.addEventListener("abort", cancel);
      });
    } finally {
      asked.delete(id);
      for (const one of [this.signal, signal]) one?.removeEventListener("abort", cancel);
    }
  }

  /** The answer comes next, and nothing after it. */
  finish() {
    this.sendUpdate();
    this.isOver = true;
    for (const input of this.inputs.values()) input.return();
    for (const { call, reject } of asked.values())
      if (call === this) reject(new Error("the call is over"));
  }
}

/** What a host tool has thrown; the caller of this tool sees it as what it was. */
export class HostToolError extends Error {
  constructor(tool, [type, message = "", builtin = null]) {
    super(message);
    Object.assign(this, { tool, builtin, name: type });
  }
}

/** Host calls without an answer, by their number; one that nobody waits for any more is not here. */
const asked = new Map();
let lastAsked = 0;

function hostReply(id, body = null, numbers = []) {
  const whole = received(body, numbers); // also if it comes too late
  try {
    asked.get(id)?.resolve(understand(...whole));
  } catch (error) {
    asked.get(id)?.reject(error);
  }
}

/** What tools keep for a session, until the host ends it; a call without one has its own. */
const sessions = new Map();

function stateOf(sessionId) {
  if (sessionId === null) return new Map();
  if (!sessions.has(sessionId)) sessions.set(sessionId, new Map());
  return sessions.get(sessionId);
}

let tools, hooks;
let running = null; // the one call that has begun
const waiting = []; // those that have not

/** Serve these tools until the host says Shutdown or is gone. */
export function serve(theTools, { initialize = () => {}, cleanup = () => {} } = {}) {
  [tools, hooks] = [new Map(Object.entries(theTools)), { initialize, cleanup }];
  process.once("SIGTERM", leave);
  send(HELLO, VERSION, process.pid, `node ${process.version}`);
  listen(handle, leave);
}

// -- messages -----------------------------------------------------------------------------------

function handle([tag, ...fields]) {
  const [id, second] = fields;
  const known = [running, ...waiting].find((call) => call?.id === Number(id));
  switch (tag) {
    case START:
      return begin(fields);
    case CALL: {
      const [, , body = null, buffers = [], timeoutS = null, window = 0, ...more] = fields;
      waiting.push(new Call(Number(id), second, body, buffers, timeoutS, window, ...more));
      return void run();
    }
    case CANCEL:
      if (known === running) known?.controller.abort();
      else if (known) send(SETTLED, takeBack([id])[0], false);
      return known?.wake();
    case CREDIT:
      if (known) known.credit += Number(second);
      return known?.wake();
    case INPUT_ITEM: {
      const item = received(fields[2] ?? null, fields[3] ?? []); // also what comes too late
      return known?.inputs.get(Number(second))?.put(item);
    }
    case INPUT_END:
      return known?.inputs.get(Number(second))?.put(null);
    case RECALL:
      return send(RETURNED, takeBack(id));
    case HOST_REPLY:
      return hostReply(Number(id), ...fields.slice(1));
    case HOST_FAILURE:
      return asked.get(Number(id))?.reject(new HostToolError(second, fields[2]));
    case END_SESSION:
      return void sessions.delete(id); // calls that wait have its state already
    case SHUTDOWN:
      return void shutdown();
    default:
      throw new Error(`unknown message ${tag}`);
  }
}

/** The ids of those of these calls that waited, and do so no more. */
function takeBack(ids) {
  const back = waiting.filter((call) => ids.map(Number).includes(call.id));
  for (const call of back) waiting.splice(waiting.indexOf(call), 1);
  return back.map((call) => call.id);
}

async function begin([, , body = null, numbers = []]) {
  const given = new Call(0, "", body, numbers, null, 0); // adapter_args, as a tuple
  try {
    await hooks.initialize(...(understand(given.body, given.buffers) ?? []));
    send(
      READY,
      [...tools].map(([name, tool]) => [name, tool.description ?? "", schema(tool), streams(tool)]),
    );
  } catch (error) {
    send(FAILURE, 0, "start", describe(error));
    process.exit(1);
  }
}

let cleaned;
const cleanUp = () => (cleaned ??= (async () => hooks.cleanup())());

async function shutdown() {
  await cleanUp();
  send(GOODBYE);
  process.exit(0);
}

/** The host is gone, or wants us to be: end the running call, clean up, all within bounds. */
async function leave() {
  waiting.length = 0;
  running?.controller.abort();
  running?.wake();
  await Promise.race([running?.over, delay(FAREWELL_MS)]);
  await Promise.race([cleanUp(), delay(FAREWELL_MS)]);
  process.exit(0);
}

// -- calls --------------------------------------------------------------------------------------

let isServing = false;

/** Run what waits, one at a time; before each hear all that the host has said. */
async function run() {
  if (isServing) return;
  isServing = true;
  for (;;) {
    await turn();
    running = waiting.shift() ?? null;
    if (running === null) break;
    running.over = outcome(running);
    await running.over;
  }
  isServing = false;
}

/** Run a call and answer it. Once it is cancelled the answer is Settled, however it ends. */
async function outcome(call) {
  let kind = "serialization";
  let answer;
  try {
    const inputs = call.inputWindow > 0 ? takeInputs(call, call.body) : {};
    const given = understand(call.body, call.buffers);
    if (call.inputWindow > 0) Object.assign(given, inputs);
    kind = "not_found";
    const tool = tools.get(call.tool);
    if (tool === undefined) throw new Error(`there is no tool ${call.tool}`);
    kind = "params";
    const params = check(tool, given, call);
    kind = "tool";
    const { id, signal, timeoutS, sessionId, session } = call;
    const progress = call.report.bind(call);
    const callHost = call.callHost.bind(call);
    const context = { id, signal, timeoutS, sessionId, session, progress, callHost };
    const result = tool.run(params, context);
    if (call.isStream) {
      for await (const item of result) {
        if (!(await call.mayYield())) break; // which runs the generator's `finally`
        sendValue(ITEM, call.id, item);
        await turn(); // or a generator that awaits nothing would keep us from hearing Cancel
        if (call.signal.aborted) break; // rather than ask for an item that nobody will read
      }
      answer = () => send(END, call.id);
    } else {
      const value = await result;
      answer = () => sendValue(RESULT, call.id, value);
    }
    call.finish();
    if (!call.signal.aborted) return answer();
  } catch (error) {
    call.finish();
    if (error instanceof CannotTravelError) kind = "serialization";
    if (!call.signal.aborted) return send(FAILURE, call.id, kind, describe(error));
  }
  send(SETTLED, call.id);
}

const streams = (tool) => /GeneratorFunction$/.test(tool.run.constructor.name);

const IS = {
  null: (value) => value === null,
  boolean: (value) => typeof value === "boolean",
  integer: (value) => typeof value === "bigint" || Number.isInteger(value),
  number: (value) => typeof value === "bigint" || typeof value === "number",
  string: (value) => typeof value === "string",
  array: Array.isArray,
  object: (value) => Object.getPrototypeOf(value ?? 0) === Object.prototype,
};

/** The arguments, checked and with their defaults. */
function check(tool, params, call) {
  if (streams(tool) !== call.isStream) {
    throw new Error(call.isStream ? "this tool does not stream" : "this tool streams");
  }
  if (!IS.object(params)) throw new Error("the arguments are not a map of names");
  if (tool.parameters === undefined) return params;
  const unknown = Object.keys(params).find((name) => !Object.hasOwn(tool.parameters, name));
  if (unknown !== undefined) throw new Error(`unknown argument '${unknown}'`);
  const checked = Object.entries(tool.parameters).map(([name, { type, default: fallback }]) => {
    const value = Object.hasOwn(params, name) ? params[name] : fallback;
    if (value === undefined) throw new Error(`the argument '${name}' is missing`);
    if (type !== undefined && !IS[type](value))
      throw new Error(`the argument '${name}' must be of type ${type}`);
    return [name, value];
  });
  return Object.fromEntries(checked);
}

function schema({ parameters }) {
  if (parameters === undefined) return { type: "object" };
  const required = Object.keys(parameters).filter((name) => parameters[name].default === undefined);
  return { type: "object", properties: parameters, required, additionalProperties: false };
}

// -- errors -------------------------------------------------------------------------------------

// What `except` can say in Python: by the code of a system error, else by the class.
const BUILTINS = {
  ENOENT: "FileNotFoundError",
  EEXIST: "FileExistsError",
  EACCES: "PermissionError",
  TypeError: "TypeError",
  RangeError: "ValueError",
  ReferenceError: "NameError",
};

function builtin(error) {
  const kind = [TypeError, RangeError, ReferenceError].find((type) => error instanceof type);
  return BUILTINS[error.code] ?? BUILTINS[kind?.name] ?? null;
}

const text = (value, chars = TEXT_CHARS_MAX) =>
  Buffer.from(String(value ?? "").slice(0, chars)).toString();

/** An ErrorData: type, message, nearest builtin of Python, args, traceback, notes, cause. */
function describe(error, depth = 0) {
  try {
    if (!(error instanceof Error))
      return [typeof error, text(typeof error === "string" ? error : inspect(error))];
    const { name, message, stack, cause } = error;
    const deeper = cause === undefined || depth === CAUSES_MAX ? null : describe(cause, depth + 1);
    const type = text(name === "Error" ? error.constructor.name : name).slice(0, NAME_CHARS_MAX);
    const nearest = error instanceof HostToolError ? error.builtin : builtin(error);
    return [type, text(message), nearest, null, text(stack), [], deeper];
  } catch {
    return ["Error", "the error cannot be described"];
  }
}
