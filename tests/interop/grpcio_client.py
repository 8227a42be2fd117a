# mypy: ignore-errors
"""A client that knows protos/ alone: grpcio, with stubs made by grpcio-tools.

Runs as `grpcio_client.py STUBS TARGET TLS_TARGET TOKEN DOCUMENT`, in a folder of its own; prints what it saw as one JSON object. A
process of its own: the stubs are a package of our name.
"""

import json
import re
import sys
import time
from pathlib import Path

STUBS, TARGET, TLS_TARGET, TOKEN, DOCUMENT = sys.argv[1:]
FOLDER = Path.cwd()
sys.path.insert(0, STUBS)

import grpc
import msgspec
from google.protobuf import json_format, struct_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from snakepit.v1 import worker_pb2, worker_pb2_grpc

MIB = 2**20
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
TOKENS = (("snakepit-token", TOKEN),)


class WithToken(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    def _add(self, go_on, details, request):
        return go_on(details._replace(metadata=(*TOKENS, *(details.metadata or ()))), request)

    intercept_unary_unary = intercept_unary_stream = intercept_stream_stream = _add


bare = grpc.insecure_channel(TARGET, options=UNLIMITED)
channel = grpc.intercept_channel(bare, WithToken())
worker = worker_pb2_grpc.WorkerStub(channel)
health = health_pb2_grpc.HealthStub(channel)


def as_json(tool, session="", **params):
    value = json_format.ParseDict(params, struct_pb2.Value())
    return worker_pb2.ExecuteRequest(
        tool=tool, params=worker_pb2.Value(json=value), session=session
    )


def as_msgpack(tool, **params):
    value = worker_pb2.Value(msgpack=msgspec.msgpack.encode(params))
    return worker_pb2.ExecuteRequest(tool=tool, params=value)


def plain(reply):
    return json_format.MessageToDict(reply.value.json)


def error_of(request, **options):
    try:
        worker.Execute(request, **options)
    except grpc.RpcError as error:
        trailers = dict(error.trailing_metadata() or ())
        detail = worker_pb2.ErrorDetail.FromString(trailers.get("snakepit-error-bin", b""))
        return [error.code().name, detail.kind, detail.type, error.details()]
    return None


def until(path, text):
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if Path(path).exists() and text in Path(path).read_text(encoding="utf-8"):
            return True
        time.sleep(0.005)
    return False


def list_tools():
    tools = {tool.name: tool for tool in worker.ListTools(worker_pb2.ListToolsRequest()).tools}
    add, count = tools["add"], tools["count"]
    schema = json.loads(add.parameters)
    return {
        "names": sorted(tools),
        "add": [add.description, add.streaming, add.idempotent, schema["required"]],
        "count": count.streaming,
    }


def execute():
    value = {"a": [1, 2.5, None, True, "ü"], "b": {"c": []}}
    packed = worker.Execute(as_msgpack("echo", value=value)).value.msgpack
    return {
        "add": plain(worker.Execute(as_json("add", left=1, right=2))),
        "echo": plain(worker.Execute(as_json("echo", value=value))) == value,
        "msgpack": msgspec.msgpack.decode(packed) == value,
        "host": plain(worker.Execute(as_json("ask_host"))),
        "sessions": [
            plain(worker.Execute(as_json("remember", session, value=number)))
            for number, session in enumerate(["one", "one", "two"])
        ],
    }


def errors():
    broken = worker_pb2.ExecuteRequest(tool="echo", params=worker_pb2.Value(msgpack=b"\x92\x01"))
    return {
        "tool": error_of(as_json("fail")),
        "not_found": error_of(as_json("ad")),
        "params": error_of(as_json("add", left="x")),
        "no_json": error_of(as_json("a_set")),
        "no_msgpack": error_of(broken),
        "not_a_stream": error_of(as_json("count", stop=1)),
        "compressed": error_of(
            as_json("echo", value="x" * 2000), compression=grpc.Compression.Gzip
        )[0],
        "still_there": plain(worker.Execute(as_json("add", left=1))),
    }


def stream():
    items = [plain(item) for item in worker.ExecuteStream(as_json("count", stop=100))]
    path = f"{FOLDER}/stream"
    call = worker.ExecuteStream(as_json("count", stop=10**9, path=path))
    first = [plain(next(call)) for _ in range(3)]
    call.cancel()
    return {"items": items, "first": first, "closed": until(path, "closed")}


def cancel():
    path = f"{FOLDER}/cancel"
    call = worker.Execute.future(as_json("sleep", path=path))
    begun = until(path, "begun")
    call.cancel()
    ended = until(path, "ended")
    return {"begun": begun, "ended": ended, "next": plain(worker.Execute(as_json("add", left=1)))}


def deadline():
    path = f"{FOLDER}/deadline"
    error = error_of(as_json("sleep", path=path), timeout=0.3)
    return {
        "code": error and error[0],
        # Some clients round it up on the wire.
        "left": 0 < plain(worker.Execute(as_json("time_left"), timeout=30)) <= 31,
        "none": plain(worker.Execute(as_json("time_left"))),
        "ended": until(path, "ended"),
        "next": plain(worker.Execute(as_json("add", left=1))),
    }


def trace():
    parent = ("traceparent", f"00-{'a' * 32}-{'b' * 16}-01")
    whole = (parent, ("tracestate", "a=1"), ("tracestate", "b=2"))
    return {
        "whole": plain(worker.Execute(as_json("trace"), metadata=whole)),
        "streams": [
            plain(item) for item in worker.ExecuteStream(as_json("traces"), metadata=whole)
        ],
        "parent": plain(worker.Execute(as_json("trace"), metadata=(parent,))),
        "nonsense": plain(worker.Execute(as_json("trace"), metadata=(("traceparent", "x"),))),
        "none": plain(worker.Execute(as_json("trace"))),
    }


def large():
    data = bytes(range(256)) * (64 * MIB // 256)
    start = time.monotonic()
    back = worker.Execute(as_msgpack("echo", value=data)).value.msgpack
    return {"same": msgspec.msgpack.decode(back) == data, "s": time.monotonic() - start}


def many():
    """150 calls that hang; health is asked on the same connection meanwhile."""
    path = f"{FOLDER}/many"
    calls = [worker.Execute.future(as_json("sleep", path=path)) for _ in range(150)]
    begun = until(path, "begun")
    status = health.Check(health_pb2.HealthCheckRequest(), timeout=10).status
    for call in calls:
        call.cancel()
    return {"begun": begun, "health": status, "next": plain(worker.Execute(as_json("add", left=1)))}


def storm():
    """A thousand calls given up at once; windows and places are all given back."""
    request = as_msgpack("echo", value=bytes(5000))
    calls = [worker.Execute.future(request) for _ in range(1000)]
    for call in calls:
        call.cancel()
    data = bytes(8 * MIB)
    back = worker.Execute(as_msgpack("echo", value=data)).value.msgpack
    return {"same": msgspec.msgpack.decode(back) == data}


def unread():
    """A client that does not read its stream holds nobody up who does not need the worker's time."""
    call = worker.ExecuteStream(as_msgpack("blobs", count=1000, size=MIB))
    next(call)
    status = health.Check(health_pb2.HealthCheckRequest(), timeout=10).status
    call.cancel()
    return {"health": status, "next": plain(worker.Execute(as_json("add", left=1)))}


def check_health():
    watch = health.Watch(health_pb2.HealthCheckRequest(service="snakepit.v1.Worker"))
    first = next(watch).status
    watch.cancel()
    try:
        health.Check(health_pb2.HealthCheckRequest(service="nobody"))
        unknown = None
    except grpc.RpcError as error:
        unknown = error.code().name
    return {
        "check": health.Check(health_pb2.HealthCheckRequest()).status,
        "watch": first,
        "unknown": unknown,
    }


def reflection():
    database = ProtoReflectionDescriptorDatabase(channel)
    inner = [
        "grpc.health.v1.HealthCheckResponse.ServingStatus",
        "google.protobuf.Struct.FieldsEntry",
    ]
    service = DescriptorPool(database).FindServiceByName("snakepit.v1.Worker")
    return {
        "services": sorted(database.get_services()),
        "inner": [database.FindFileContainingSymbol(name).name for name in inner],
        "methods": [method.name for method in service.methods],
        "fields": [field.name for field in service.methods_by_name["Execute"].input_type.fields],
    }


def token():
    found = []
    for metadata in ((), (("snakepit-token", "wrong"),)):
        try:
            worker_pb2_grpc.WorkerStub(bare).Execute(as_json("add", left=1), metadata=metadata)
        except grpc.RpcError as error:
            found.append(error.code().name)
    return found


def document():
    """What the document shows of Python, the second time with TLS and the token."""
    page = Path(DOCUMENT).read_text(encoding="utf-8")
    (blocks,) = re.findall(
        r"^```python\n(import sys\n.*?)```\n\nWith TLS and .*?```python\n(.*?)```",
        page,
        re.DOTALL | re.MULTILINE,
    )
    replies = []
    for shown in (blocks[0], "".join(blocks)):
        code, names = shown, {"TOKENS": TOKENS}
        for old, new in (
            ('"unix:/run/user/1000/worker.sock"', repr(TARGET)),
            ("Execute(request, timeout=30)", "Execute(request, timeout=30, metadata=TOKENS)"),
            ('"worker-1.example:50051"', repr(TLS_TARGET)),
            ('tool="predict"', 'tool="echo"'),
            ('"text"', '"value"'),
        ):
            assert old in code or shown is blocks[0], f"{old} is not shown any more"
            code = code.replace(old, new)
        exec(code, names)
        replies.append(plain(names["reply"]))
    return replies


steps = (
    list_tools, execute, errors, stream, cancel, deadline, trace, large, many, storm, unread, check_health,
    reflection, token, document,
)  # fmt: skip
saw = {}
for step in steps:
    start = time.monotonic()
    try:
        saw[step.__name__] = step()
    except Exception as error:
        saw[step.__name__] = f"{type(error).__name__}: {error}"
    print(f"{step.__name__}: {time.monotonic() - start:.2f} s", file=sys.stderr)
print(json.dumps(saw))
