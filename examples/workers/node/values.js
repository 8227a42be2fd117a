// Values: what JavaScript and the wire call each other's types. The table is in README.md.

import { decode, encode, ExtData } from "@msgpack/msgpack";

const BUFFER_BYTES_MIN = 64 * 2 ** 10; // byte strings from here on travel as buffers
const BUFFERS_MAX = 1000;
const NESTING_MAX = 150;
const EXT = {
  INT: 1,
  BYTEARRAY: 3,
  TUPLE: 4,
  SET: 5,
  FROZENSET: 6,
  DICT: 7,
  DATETIME: 8,
  BYTES: 32,
};

/** A value that this worker cannot read, or cannot send. */
export class CannotTravelError extends Error {}

/** msgpack already: goes into a message as it is. */
export class Packed {
  constructor(bytes) {
    this.bytes = bytes;
  }
}

// The codec would refuse the whole message for a key `__proto__`; this refuses the value alone.
const PROTO = Symbol("__proto__");
const keyDecoder = {
  canBeCached: () => true,
  decode(bytes, at, length) {
    const key = asBuffer(bytes).toString("utf8", at, at + length);
    return key === "__proto__" ? PROTO : key;
  },
};
const DECODING = { useBigInt64: true, keyDecoder, mapKeyConverter: (key) => key };

/** msgpack → JavaScript; extensions stay ExtData, integers of 64 bits are BigInt. */
export const unpack = (bytes) => decode(bytes, DECODING);

/** What `unpack` gave, with its extensions read and its integers numbers where they are exact. */
export function understand(value, buffers = []) {
  if (typeof value === "bigint") return exact(value);
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map((member) => understand(member, buffers));
  if (value instanceof Uint8Array) return asBuffer(value);
  if (value instanceof ExtData) return extension(value.type, value.data, buffers);
  if (PROTO in value)
    throw new CannotTravelError("a dict with the key '__proto__' is not read here");
  for (const key of Object.keys(value)) value[key] = understand(value[key], buffers);
  return value;
}

function extension(code, data, buffers) {
  if (code === EXT.INT)
    return exact(BigInt.asIntN(data.length * 8, BigInt(`0x${asBuffer(data).toString("hex")}`)));
  if (!Object.values(EXT).includes(code))
    throw new CannotTravelError(`this worker does not know ext ${code}`);
  if (code === EXT.DATETIME) return moment(...unpack(data));
  const content = understand(unpack(data), buffers);
  switch (code) {
    case EXT.BYTES:
    case EXT.BYTEARRAY:
      return typeof content === "number" ? buffers[content] : content;
    case EXT.SET:
    case EXT.FROZENSET:
      return new Set(content);
    case EXT.DICT:
      return new Map(content.flatMap((key, i) => (i % 2 ? [] : [[key, content[i + 1]]])));
    default:
      return content; // a tuple
  }
}

function moment(year, month, day, hour, minute, second, microsecond, _fold, zone) {
  const key = zone && unpack(zone.data); // "UTC", or microseconds east of it and a name
  if (key === null) throw new CannotTravelError("a datetime without a zone is no moment in time");
  if (typeof key === "string" && key !== "UTC")
    throw new CannotTravelError(`send times in UTC, not in ${key}`);
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day); // Date.UTC takes years below 100 for 19xx
  date.setUTCHours(hour, minute, second, microsecond / 1000);
  return new Date(date.getTime() - (key === "UTC" ? 0 : Number(key[0]) / 1000));
}

/** JavaScript → msgpack. Large byte strings are put into `buffers`; the value names their places. */
export function pack(value, buffers = []) {
  const portable = (value, depth = 0) => {
    if (depth > NESTING_MAX)
      throw new CannotTravelError("the value is nested too deeply, or contains itself");
    const each = (members) => members.map((member) => portable(member, depth + 1));
    switch (typeof value) {
      case "undefined":
        return null;
      case "boolean":
        return value;
      case "number": // the codec would make a float of an integer over 32 bits
        return Number.isSafeInteger(value) && Math.abs(value) > 2 ** 31 ? BigInt(value) : value;
      case "bigint":
        return value >= -(2n ** 63n) && value < 2n ** 64n
          ? value
          : new ExtData(EXT.INT, twosComplement(value));
      case "string":
        if (/\p{Surrogate}/u.test(value))
          throw new CannotTravelError("a string with half a surrogate pair");
        return value;
      case "object":
        break;
      default:
        throw new CannotTravelError(`a ${typeof value} cannot travel`);
    }
    if (value === null) return null;
    if (Array.isArray(value)) return each(value);
    if (value instanceof Uint8Array) {
      if (value.length < BUFFER_BYTES_MIN || buffers.length >= BUFFERS_MAX) return value;
      return new ExtData(EXT.BYTES, encode(buffers.push(value) - 1));
    }
    const inside = (members) =>
      encode(each(members), { useBigInt64: true, maxDepth: 2 * NESTING_MAX });
    if (value instanceof Set) return new ExtData(EXT.SET, inside([...value]));
    if (value instanceof Map) return new ExtData(EXT.DICT, inside([...value].flat()));
    if (value instanceof Date && !Number.isNaN(value.getTime())) return value;
    if (![Object.prototype, null].includes(Object.getPrototypeOf(value))) {
      throw new CannotTravelError(`a ${value.constructor?.name ?? "value"} cannot travel`);
    }
    return Object.fromEntries(
      Object.entries(value).map(([key, member]) => [portable(key), portable(member, depth + 1)]),
    );
  };
  return new Packed(encode(portable(value), { useBigInt64: true, maxDepth: 2 * NESTING_MAX }));
}

const asBuffer = (bytes) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const exact = (big) => (Number.isSafeInteger(Number(big)) ? Number(big) : big);

function twosComplement(big) {
  const size = Math.ceil((big < 0n ? -big : big).toString(16).length / 2) + 1;
  return Buffer.from(
    BigInt.asUintN(size * 8, big)
      .toString(16)
      .padStart(size * 2, "0"),
    "hex",
  );
}
