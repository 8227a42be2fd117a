// The wire: frames, and the transfers that large values travel in. Import this module before any
// other: from then on what is printed goes to stderr, and the wire is nobody else's.

import fs from "node:fs";
import net from "node:net";

import { encode } from "@msgpack/msgpack";
import { pack, Packed, unpack } from "./values.js";

const PART = 16;
const FRAME_BYTES_MAX = 4 * 2 ** 20;
const PART_BYTES_MAX = 2 ** 20;
const TRANSFERS_OPEN_MAX = 1024;
const BODY_IN_TRANSFER = new Packed(Buffer.of(0xc7, 0, 127));

const [input, output] = privateWire();

/** The wire on descriptors that only we know (and no child inherits); 0 is empty, 1 is stderr. */
function privateWire() {
  if (!fs.fstatSync(0).isFIFO()) return [3, 4]; // a shell has moved it: 3<&0 4>&1 </dev/null >&2
  const wire = [fs.openSync("/dev/fd/0", "r"), fs.openSync("/dev/fd/1", "w")];
  reopen(0, "/dev/null", "r");
  reopen(1, "/dev/fd/2", "a");
  return wire;
}

/** What `dup2` would do in one step. */
function reopen(fd, path, flags) {
  fs.closeSync(fd);
  for (const end = Date.now() + 1000; Date.now() < end;) {
    const got = fs.openSync(path, flags); // the lowest free number: this one, were we alone
    if (got === fd) return;
    fs.closeSync(got); // a thread of the runtime has it for a moment
  }
  throw new Error(`descriptor ${fd} is in use`);
}

/** Hand each message to `handle`, but for Parts, which are kept; at the end of the stream call `gone`. */
export function listen(handle, gone) {
  const socket = new net.Socket({ fd: input, readable: true, writable: false });
  socket.on("readable", () => {
    try {
      readFrames(socket, handle);
    } catch (error) {
      console.error(`the host broke the protocol: ${error.stack}`);
      process.exit(1);
    }
  });
  socket.on("end", gone);
}

let size = null; // of the frame that is being read

function readFrames(socket, handle) {
  for (;;) {
    if (size === null) {
      const prefix = socket.read(4);
      if (prefix === null) return;
      size = prefix.readUInt32BE(); // throws when the stream ends inside it
      if (size === 0 || size > FRAME_BYTES_MAX) throw new Error(`a frame claims ${size} bytes`);
    }
    const payload = socket.read(size);
    if (payload === null) return;
    if (payload.length < size) throw new Error("the stream ended inside a frame");
    size = null;
    const message = unpack(payload);
    if (message[0] === PART) keepPart(Number(message[1]), message[2]);
    else handle(message);
  }
}

const transfers = new Map(); // number → the data of its Parts
let lastTransfer = 0;

function keepPart(number, data) {
  if (data === null) transfers.delete(number);
  else if (transfers.has(number)) transfers.get(number).push(data);
  else if (transfers.size < TRANSFERS_OPEN_MAX) transfers.set(number, [data]);
  else throw new Error("too many transfers are open");
}

/** The bytes of a transfer, which are used up by that. */
export function take(number) {
  const parts = transfers.get(Number(number));
  if (parts === undefined) throw new Error(`transfer ${number} never came`);
  transfers.delete(Number(number));
  return Buffer.concat(parts);
}

export function send(tag, ...fields) {
  const packed = [tag, ...fields].map((field) =>
    field instanceof Packed ? field.bytes : encode(field),
  );
  const frame = Buffer.concat([Buffer.of(0, 0, 0, 0, 0x90 | packed.length), ...packed]);
  frame.writeUInt32BE(frame.length - 4);
  try {
    for (let sent = 0; sent < frame.length;) sent += fs.writeSync(output, frame, sent);
  } catch {
    process.exit(1); // the host has closed its end
  }
}

/** Send a value behind these fields, one or several: what is large in it in Parts, before the message. */
export function sendValue(tag, head, value) {
  const buffers = [];
  let body = pack(value, buffers);
  if (body.bytes.length > PART_BYTES_MAX) {
    buffers.push(body.bytes);
    body = BODY_IN_TRANSFER;
  }
  const numbers = buffers.map((data) => {
    lastTransfer += 1;
    for (let at = 0; at < data.length; at += PART_BYTES_MAX) {
      send(PART, lastTransfer, data.subarray(at, at + PART_BYTES_MAX));
    }
    return lastTransfer;
  });
  send(tag, ...[head].flat(), body, numbers);
}
