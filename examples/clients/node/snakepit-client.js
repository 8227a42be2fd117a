// A client of a snakepit worker that serves gRPC: `python -m snakepit.worker --listen …`.
// It knows protos/snakepit/v1/worker.proto and nothing else of snakepit.

import { fileURLToPath } from "node:url";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const PROTOS = fileURLToPath(new URL("../../../protos", import.meta.url));
const MESSAGE_BYTES_MAX = 256 * 2 ** 20;

const definition = protoLoader.loadSync("snakepit/v1/worker.proto", {
  includeDirs: [PROTOS],
  defaults: true,
  oneofs: true,
});
const { Worker } = grpc.loadPackageDefinition(definition).snakepit.v1;
const ErrorDetail = definition["snakepit.v1.ErrorDetail"];

/** What went wrong in a tool. `status` is gRPC's; `kind`, `type`, `traceback` are the worker's. */
export class ToolError extends Error {
  constructor(error) {
    super(error.details || error.message);
    this.name = "ToolError";
    this.status = grpc.status[error.code];
    const [data] = error.metadata?.get("snakepit-error-bin") ?? [];
    const { kind, type, traceback } = data ? ErrorDetail.deserialize(data) : {};
    Object.assign(this, { kind, type, traceback });
  }
}

/** One worker. `target`: "unix:/path" or "host:port". `token`: where the worker has one. */
export class Client {
  #worker;
  #metadata = new grpc.Metadata();

  constructor(target, { token, credentials = grpc.credentials.createInsecure() } = {}) {
    this.#worker = new Worker(target, credentials, {
      "grpc.max_receive_message_length": MESSAGE_BYTES_MAX,
      "grpc.max_send_message_length": MESSAGE_BYTES_MAX,
    });
    if (token) this.#metadata.set("snakepit-token", token);
  }

  /** name → { description, parameters (JSON Schema), streaming, idempotent } */
  async tools() {
    const { tools } = await this.#unary("ListTools", {}, {});
    return Object.fromEntries(
      tools.map(({ name, parameters, ...rest }) => [
        name,
        { ...rest, parameters: parameters ? JSON.parse(parameters) : null },
      ]),
    );
  }

  /** Run a tool and return its value. `signal` aborts it in the worker; `timeout` is in ms. */
  async execute(tool, params = {}, options = {}) {
    const { value } = await this.#unary("Execute", request(tool, params, options), options);
    return fromJson(value.json);
  }

  /** The items of a tool that yields. Leaving the loop closes the generator in the worker. */
  async *stream(tool, params = {}, options = {}) {
    options.signal?.throwIfAborted();
    const call = this.#worker.ExecuteStream(
      request(tool, params, options),
      this.#metadata,
      deadline(options),
    );
    const abort = () => call.cancel();
    options.signal?.addEventListener("abort", abort);
    try {
      for await (const { value } of call) yield fromJson(value.json);
    } catch (error) {
      throw new ToolError(error);
    } finally {
      options.signal?.removeEventListener("abort", abort);
      call.on("error", () => {}); // CANCELLED, which we have asked for
      call.cancel();
    }
  }

  close() {
    this.#worker.close();
  }

  #unary(method, message, { signal, ...options }) {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const call = this.#worker[method](message, this.#metadata, deadline(options), (error, reply) => {
        signal?.removeEventListener("abort", abort);
        if (error) reject(new ToolError(error));
        else resolve(reply);
      });
      const abort = () => call.cancel();
      signal?.addEventListener("abort", abort);
    });
  }
}

const request = (tool, params, { session = "" }) => ({ tool, session, params: { json: toJson(params) } });
const deadline = ({ timeout }) => (timeout === undefined ? {} : { deadline: Date.now() + timeout });

/**
 * A value as google.protobuf.Value has it, which proto-loader leaves as it is. As in JSON.stringify,
 * what is undefined is left out of an object; what JSON has not is a TypeError, never something else.
 */
export function toJson(value) {
  if (value === null || value === undefined) return { nullValue: 0 };
  if (typeof value === "boolean") return { boolValue: value };
  if (typeof value === "number") return { numberValue: value };
  if (typeof value === "string") return { stringValue: value };
  if (Array.isArray(value)) return { listValue: { values: value.map(toJson) } };
  if (![Object.prototype, null].includes(Object.getPrototypeOf(value))) {
    throw new TypeError(`JSON has no ${value.constructor?.name ?? typeof value}; use the field msgpack`);
  }
  const given = Object.entries(value).filter(([, item]) => item !== undefined);
  const fields = given.map(([key, item]) => [key, toJson(item)]);
  return { structValue: { fields: Object.fromEntries(fields) } };
}

/** The same the other way. */
export function fromJson(value) {
  switch (value?.kind) {
    case "boolValue":
    case "numberValue":
    case "stringValue":
      return value[value.kind];
    case "listValue":
      return value.listValue.values.map(fromJson);
    case "structValue":
      return Object.fromEntries(
        Object.entries(value.structValue.fields).map(([key, item]) => [key, fromJson(item)]),
      );
    default:
      return null;
  }
}
