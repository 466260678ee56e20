"""A gRPC server, and a client that checks what it answers; messages are bytes, so that nothing has to be generated.

serve          listens on a free port, prints it, and serves until its standard input ends
ask TARGET CA  calls the server behind TARGET; over TLS, believing the authority in the file CA, unless that is "-"
"""

import sys
from concurrent import futures

import grpc

SERVICE = "understudy.Test"
LARGE = 1_000_000


def unary(request, context):
    metadata = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-head", "1"),))
    context.set_trailing_metadata((("x-trailer", metadata.get("x-asked", "")), ("x-bytes-bin", b"\0\xff")))
    if request == b"refuse":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked: ü")
    return request[::-1]


def count(request, context):
    context.set_trailing_metadata((("x-trailer", "counted"),))
    for n in range(int(request)):
        yield str(n).encode()


def collect(requests, context):
    return b",".join(requests)


def converse(requests, context):
    for request in requests:
        yield b"re: " + request
    context.set_trailing_metadata((("x-trailer", "conversed"),))


def serve():
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Collect": grpc.stream_unary_rpc_method_handler(collect),
        "Converse": grpc.stream_stream_rpc_method_handler(converse),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=32))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(None)


def trailer(call):
    return dict(call.trailing_metadata()).get("x-trailer")


def ask(target, ca):
    if ca == "-":
        channel = grpc.insecure_channel(target)
    else:
        with open(ca, "rb") as file:
            credentials = grpc.ssl_channel_credentials(file.read())
        name = (("grpc.ssl_target_name_override", "shop.example"),)
        channel = grpc.secure_channel(target, credentials, options=name)
    path = f"/{SERVICE}/"

    # A unary call, with metadata both ways.
    call_unary = channel.unary_unary(path + "Unary")
    answer, call = call_unary.with_call(b"abc", timeout=20, metadata=(("x-asked", "7"),))
    assert answer == b"cba", answer
    assert dict(call.initial_metadata())["x-head"] == "1", call.initial_metadata()
    assert trailer(call) == "7", call.trailing_metadata()
    assert dict(call.trailing_metadata())["x-bytes-bin"] == b"\0\xff", call.trailing_metadata()
    assert call_unary(b"x" * LARGE, timeout=20) == b"x" * LARGE

    # A status other than OK, with its message.
    try:
        call_unary(b"refuse", timeout=20)
        raise AssertionError("it was not refused")
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION, error
        assert error.details() == "as asked: ü", error.details()
    try:
        channel.unary_unary(path + "Nonsense")(b"", timeout=20)
        raise AssertionError("there is no such method")
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED, error

    # Streams from the server, from the client, and both at once.
    call = channel.unary_stream(path + "Count")(b"500", timeout=20)
    assert [int(n) for n in call] == list(range(500))
    assert trailer(call) == "counted", call.trailing_metadata()
    answer = channel.stream_unary(path + "Collect")(iter([b"a", b"b", b"c"]), timeout=20)
    assert answer == b"a,b,c", answer

    heard = []

    def say():
        # Each is said when the one before it is answered: nothing on the way may wait for more.
        for n in range(50):
            while len(heard) < n:
                pass
            yield str(n).encode()

    call = channel.stream_stream(path + "Converse")(say(), timeout=20)
    for answer in call:
        heard.append(answer)
    assert heard == [f"re: {n}".encode() for n in range(50)], heard
    assert trailer(call) == "conversed", call.trailing_metadata()

    # One that is given up does not hurt the others.
    given_up = channel.stream_stream(path + "Converse")(iter(lambda: b"again", None), timeout=20)
    next(given_up)
    given_up.cancel()
    many = [call_unary.future(str(n).encode(), timeout=20) for n in range(200)]
    assert [call.result() for call in many] == [str(n).encode()[::-1] for n in range(200)]
    print("ok")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        ask(*sys.argv[2:])
