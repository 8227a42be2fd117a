// Inputs: arguments whose items come one by one, as the tool asks for them.

import { ExtData } from "@msgpack/msgpack";
import { send, take } from "./wire.js";
import { understand, unpack } from "./values.js";

const [INPUT_CREDIT, INPUT_STOP] = [44, 45];
const EXT_INPUT = 18;

/** The body and the buffers of a message, from the transfers that it names. */
export function received(body, numbers) {
  const buffers = numbers.map(take);
  const isWhole = body instanceof ExtData && body.type === 127;
  return [isWhole ? unpack(buffers.pop()) : body, buffers];
}

/** Take the inputs of a call out of its arguments; they are read on their own: name → `Input`. */
export function takeInputs(call, body) {
  const isInput = ([, value]) => value instanceof ExtData && value.type === EXT_INPUT;
  const found = Object.entries(body ?? {}).filter(isInput);
  for (const [name] of found) delete body[name];
  return Object.fromEntries(
    found.map(([name, value]) => [name, new Input(call, Number(unpack(value.data)))]),
  );
}

/** What a tool gets: `for await (const item of input)`. Leaving the loop early wants no more of it. */
class Input {
  #call;
  #number;
  #credit = 0; // items that may still come
  #arrived = []; // null: the end
  #hasEnded = false;
  #wake = () => {};

  constructor(call, number) {
    [this.#call, this.#number] = [call, number];
    call.inputs.set(number, this);
    call.signal.addEventListener("abort", () => this.#wake());
  }

  /** An item, or null for the end, has come. */
  put(item) {
    this.#credit -= item === null ? 0 : 1;
    this.#arrived.push(item);
    this.#wake();
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  async next() {
    this.#ask();
    while (this.#arrived.length === 0 && !this.#hasEnded) {
      this.#check();
      await new Promise((resolve) => (this.#wake = resolve));
    }
    this.#check();
    const item = this.#hasEnded ? null : this.#arrived.shift();
    this.#hasEnded ||= item === null;
    if (item === null) return { done: true, value: undefined };
    this.#ask(); // for as many as have been taken, once that is half of the window
    return { done: false, value: understand(...item) };
  }

  async return(value) {
    if (!this.#hasEnded && !this.#call.isOver && !this.#call.signal.aborted) {
      send(INPUT_STOP, this.#call.id, this.#number);
    }
    this.#hasEnded = true;
    this.#wake();
    return { done: true, value };
  }

  #ask() {
    if (this.#hasEnded || this.#call.isOver || this.#call.signal.aborted) return;
    const free = this.#call.inputWindow - this.#credit - this.#arrived.length;
    if (free * 2 < this.#call.inputWindow) return;
    this.#credit += free;
    send(INPUT_CREDIT, this.#call.id, this.#number, free);
  }

  #check() {
    if (this.#call.signal.aborted) throw this.#call.signal.reason;
    if (this.#call.isOver) throw new Error("this input ended with its call");
  }
}
