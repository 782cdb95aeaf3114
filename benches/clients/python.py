"""The Python clients of benches/clients/run: `python.py CLIENT URL` prints a line of JSON for each kind of request,
and goes on when it is given a line.

Each is written as its own documentation does it, with one session for all requests of a kind.
"""

import asyncio
import hashlib
import http.client
import json
import sys
import time
import urllib.parse

MANY, FEW = 20, 3
LARGE = b"x" * (2 << 20)
SUM = hashlib.sha1(LARGE).hexdigest()
EVENTS, STEP = 5, 0.04


def pieces():
    for start in range(0, len(LARGE), 1 << 18):
        yield LARGE[start:start + (1 << 18)]


async def pieces_later():
    for piece in pieces():
        yield piece


class Kind:
    """One kind of request, and what became of it."""

    def __init__(self, sent, requests):
        self.sent, self.requests = sent, requests
        self.failed, self.bytes, self.statuses, self.notes = 0, 0, set(), set()

    def got(self, version, status, size):
        self.statuses.add(f"{version} {status}".strip())
        self.bytes += size

    def failure(self, error):
        self.failed += 1
        self.notes.add(type(error).__name__)

    def echoed(self, answer):
        if answer["sha1"] != SUM:
            self.failed += 1
            self.notes.add("another body arrived")

    def took(self, seconds):
        if seconds < (EVENTS - 1) * STEP:
            self.notes.add("events held back")

    def say(self):
        print(json.dumps({"sent": self.sent, "requests": self.requests, "failed": self.failed, "bytes": self.bytes,
                          "status": ", ".join(sorted(self.statuses)), "note": "; ".join(sorted(self.notes))}), flush=True)
        # Meanwhile it is read how sidescale counted these.
        sys.stdin.readline()


def each(sent, requests, act):
    kind = Kind(sent, requests)
    for _ in range(requests):
        try:
            act(kind)
        except Exception as error:  # Whatever a library calls a failure.
            kind.failure(error)
    kind.say()


async def each_later(sent, requests, act):
    kind = Kind(sent, requests)

    async def one():
        try:
            await act(kind)
        except Exception as error:  # Whatever a library calls a failure.
            kind.failure(error)

    # At once, as that is what they are for.
    await asyncio.gather(*[one() for _ in range(requests)])
    kind.say()


def of_requests(base):
    import requests

    session = requests.Session()

    def got(kind, response):
        kind.got("HTTP/1", response.status_code, len(response.content))
        return response

    def events(kind):
        with session.get(base + "/events", stream=True, timeout=10) as response:
            begun = time.monotonic()
            lines = [line for line in response.iter_lines() if line]
            kind.took(time.monotonic() - begun)
            kind.got("HTTP/1", response.status_code, sum(map(len, lines)))

    each("GET 64 KiB", MANY, lambda kind: got(kind, session.get(base + "/bytes/65536", timeout=10)))
    each("GET, no session", MANY, lambda kind: got(kind, requests.get(base + "/bytes/128", timeout=10)))
    each("GET with trailers", MANY, lambda kind: got(kind, session.get(base + "/trailers", timeout=10)))
    each("POST 2 MiB", FEW, lambda kind: kind.echoed(got(kind, session.post(base + "/echo", data=LARGE, timeout=10)).json()))
    each("POST chunked, 2 MiB", FEW, lambda kind: kind.echoed(got(kind, session.post(base + "/echo", data=pieces(), timeout=10)).json()))
    each("POST 2 MiB, 413", FEW, lambda kind: got(kind, session.post(base + "/refuse", data=LARGE, timeout=10)))
    each("GET events", FEW, events)
    each("GET, cut by the server", FEW, lambda kind: got(kind, session.get(base + "/broken", timeout=10)))


def of_httpx(base, http2):
    import httpx

    client = httpx.Client(http1=not http2, http2=http2, timeout=10)

    def got(kind, response):
        kind.got(response.http_version, response.status_code, len(response.content))
        return response

    def events(kind):
        with client.stream("GET", base + "/events") as response:
            begun = time.monotonic()
            lines = [line for line in response.iter_lines() if line]
            kind.took(time.monotonic() - begun)
            kind.got(response.http_version, response.status_code, sum(map(len, lines)))

    each("GET 64 KiB", MANY, lambda kind: got(kind, client.get(base + "/bytes/65536")))
    each("GET with trailers", MANY, lambda kind: got(kind, client.get(base + "/trailers")))
    each("POST 2 MiB", FEW, lambda kind: kind.echoed(got(kind, client.post(base + "/echo", content=LARGE)).json()))
    each("POST, no length, 2 MiB", FEW, lambda kind: kind.echoed(got(kind, client.post(base + "/echo", content=pieces())).json()))
    each("POST 2 MiB, 413", FEW, lambda kind: got(kind, client.post(base + "/refuse", content=LARGE)))
    each("GET events", FEW, events)
    each("GET, cut by the server", FEW, lambda kind: got(kind, client.get(base + "/broken")))


async def of_aiohttp(base):
    import aiohttp

    async def got(kind, response):
        body = await response.read()
        kind.got("HTTP/1", response.status, len(body))
        return body

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        async def get(kind, path):
            async with session.get(base + path) as response:
                await got(kind, response)

        async def post(kind, path, body, **how):
            async with session.post(base + path, data=body(), **how) as response:
                answer = await got(kind, response)
                if path == "/echo":
                    kind.echoed(json.loads(answer))

        async def events(kind):
            async with session.get(base + "/events") as response:
                begun = time.monotonic()
                size = 0
                async for piece in response.content:
                    size += len(piece)
                kind.took(time.monotonic() - begun)
                kind.got("HTTP/1", response.status, size)

        async def socket(kind):
            async with session.ws_connect(base + "/ws") as one:
                for size in (5, 300, 70000):
                    await one.send_str("x" * size)
                    message = await one.receive_str()
                    kind.got("", 101, len(message))

        await each_later("GET 64 KiB", MANY, lambda kind: get(kind, "/bytes/65536"))
        await each_later("GET with trailers", MANY, lambda kind: get(kind, "/trailers"))
        await each_later("POST 2 MiB", FEW, lambda kind: post(kind, "/echo", lambda: LARGE))
        await each_later("POST chunked, 2 MiB", FEW, lambda kind: post(kind, "/echo", pieces_later))
        await each_later("POST 2 MiB, Expect", FEW, lambda kind: post(kind, "/echo", lambda: LARGE, expect100=True))
        await each_later("POST 2 MiB, Expect, 413", FEW, lambda kind: post(kind, "/refuse", lambda: LARGE, expect100=True))
        await each_later("GET events", FEW, events)
        await each_later("GET, cut by the server", FEW, lambda kind: get(kind, "/broken"))
        await each_later("WebSocket", FEW, socket)


def of_openai(base):
    import openai

    # Its own two attempts would hide a failure.
    client = openai.OpenAI(base_url=base + "/v1", api_key="none", max_retries=0, timeout=10)
    messages = [{"role": "user", "content": "hello"}]

    def whole(kind):
        answer = client.chat.completions.create(model="m", messages=messages)
        kind.got("", 200, len(answer.choices[0].message.content))

    def stream(kind):
        begun = time.monotonic()
        tokens = [piece.choices[0].delta.content for piece in client.chat.completions.create(model="m", messages=messages, stream=True)]
        kind.took(time.monotonic() - begun)
        kind.got("", 200, sum(map(len, tokens)))

    def leave(kind):
        with client.chat.completions.create(model="m", messages=messages, stream=True) as pieces:
            next(iter(pieces))
        kind.got("", "left", 0)

    each("chat completion", MANY, whole)
    each("chat completion, stream", FEW, stream)
    each("stream, and leaves", FEW, leave)


def of_http_client(base):
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(base).netloc, timeout=10)

    def ask(kind, *how, **more):
        try:
            connection.request(*how, **more)
            response = connection.getresponse()
            kind.got("HTTP/1", response.status, len(response.read()))
        except Exception:
            connection.close()
            raise

    each("GET 64 KiB", MANY, lambda kind: ask(kind, "GET", "/bytes/65536"))
    each("GET chunked, 64 KiB", MANY, lambda kind: ask(kind, "GET", "/chunked/65536"))
    each("GET, a target that is no URI", MANY, lambda kind: ask(kind, "GET", '/status/200?q={"a":<1>}'))
    each("PATCH without a body", MANY, lambda kind: ask(kind, "PATCH", "/status/204"))
    each("POST chunked, 2 MiB", FEW, lambda kind: ask(kind, "POST", "/echo", body=pieces(), encode_chunked=True, headers={"transfer-encoding": "chunked"}))


async def of_websockets(base):
    import websockets

    async def talk(kind):
        async with websockets.connect(base.replace("http", "ws") + "/ws") as one:
            for message in ("hello", "x" * 300, b"y" * 70000):
                await one.send(message)
                kind.got("", 101, len(await one.recv()))
            await asyncio.wait_for(await one.ping(), 5)
        kind.got("closed", one.close_code, 0)

    await each_later("WebSocket, ping, close", FEW, talk)


def of_grpcio(base):
    import grpc

    channel = grpc.insecure_channel(urllib.parse.urlsplit(base).netloc)
    raw = {"request_serializer": bytes, "response_deserializer": bytes}

    def code(kind, act):
        try:
            kind.got("", "OK", act())
        except grpc.RpcError as error:
            # Which of the two a deadline is called depends on who notices first, client or server.
            late = kind.sent.startswith("deadline") and error.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)
            kind.got("", "late" if late else error.code().name, 0)

    check = channel.unary_unary("/grpc.health.v1.Health/Check", **raw)
    unknown = channel.unary_unary("/no.Such/Method", **raw)
    unary = channel.unary_unary("/grpc.testing.TestService/UnaryCall", **raw)
    outward = channel.stream_unary("/grpc.testing.TestService/StreamingInputCall", **raw)
    inward = channel.unary_stream("/grpc.testing.TestService/StreamingOutputCall", **raw)
    watch = channel.unary_stream("/grpc.health.v1.Health/Watch", **raw)
    # Protobuf by hand: 60,000 bytes asked for; a payload of 60,000; four answers of 10,000.
    ask = b"\x10\xe0\xd4\x03"
    payload = b"\x0a\xe4\xd4\x03\x12\xe0\xd4\x03" + b"x" * 60000
    four = b"\x12\x03\x08\x90\x4e" * 4

    def leave():
        call = watch(b"", timeout=10)
        size = len(next(call))
        call.cancel()
        return size

    each("health check", MANY, lambda kind: code(kind, lambda: len(check(b"", timeout=10))))
    each("unary, 60 KB back", MANY, lambda kind: code(kind, lambda: len(unary(ask, timeout=10))))
    each("client stream, 8 x 60 KB", FEW, lambda kind: code(kind, lambda: len(outward(iter([payload] * 8), timeout=10))))
    each("server stream, 4 x 10 KB", FEW, lambda kind: code(kind, lambda: sum(map(len, inward(four, timeout=10)))))
    each("unknown method", FEW, lambda kind: code(kind, lambda: len(unknown(b"", timeout=10))))
    each("health watch, cancelled", FEW, lambda kind: code(kind, leave))
    each("deadline of 50 ms", FEW, lambda kind: code(kind, lambda: len(list(watch(b"", timeout=0.05)))))
    channel.close()


CLIENTS = {
    "requests": of_requests,
    "httpx": lambda base: of_httpx(base, False),
    "httpx-http2": lambda base: of_httpx(base, True),
    "aiohttp": lambda base: asyncio.run(of_aiohttp(base)),
    "openai": of_openai,
    "http.client": of_http_client,
    "websockets": lambda base: asyncio.run(of_websockets(base)),
    "grpcio": of_grpcio,
}

if __name__ == "__main__":
    CLIENTS[sys.argv[1]](sys.argv[2])
