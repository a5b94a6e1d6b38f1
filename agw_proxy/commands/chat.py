"""``agw chat``: asks a model through the running gateway, and prints the answer as it comes."""

import argparse
import contextlib
import http.client
import json
import os
import sys
from collections.abc import Iterator

from agw_proxy.commands.running import Failure, Place, ask, complaint, error_message, find

EXAMPLES = """\
examples:
  agw chat "hi"                                   the built-in echo model, with the development key
  agw chat --model gpt-4o-mini "write a haiku"
  git diff | agw chat --model fast -              the question from standard input
  agw chat --url https://gateway.example.com "hi" key from --key or OPENAI_API_KEY

Address and key come from --url and --key, else OPENAI_BASE_URL and OPENAI_API_KEY, else http://127.0.0.1:8080 and the
development key of this user. A key on a command line shows in the list of processes: prefer the environment.
"""
SILENCE_SECONDS = 600.0  # a reasoning model may think this long before a word
LINE_BYTES = 16 * 1024 * 1024  # of one event in a stream
DONE = b"[DONE]"
# What a terminal would take as a command; line breaks and tabs are text.
CONTROLS = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def add(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the program's parser."""
    parser = subparsers.add_parser(
        "chat",
        help="ask a model through the running gateway",
        description="Sends one chat request to a running gateway, and prints the answer as it comes.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("text", metavar="TEXT", help="what to ask; - reads standard input")
    parser.add_argument("--model", default="agw/echo", help="model to ask (default: agw/echo, which repeats you)")
    parser.add_argument("--url", help="address of the gateway, with or without /v1")
    parser.add_argument("--key", help="key to present")
    parser.add_argument("--no-stream", action="store_true", help="wait for the whole answer")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the answer and give 0; or say on standard error what is wrong and give 1."""
    text = sys.stdin.read() if args.text == "-" else args.text
    body = {"model": args.model, "messages": [{"role": "user", "content": text}], "stream": not args.no_stream}
    try:
        place = find(args.url, args.key, os.environ)
        for piece in answer(place, body):
            print(piece.translate(CONTROLS) if sys.stdout.isatty() else piece, end="", flush=True)
        print()
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read has enough. Standard output is closed at exit, and must not complain once more.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def answer(place: Place, body: dict[str, object]) -> Iterator[str]:
    """Give the answer's text, in pieces as they come. Raises Failure, also for a stream that ends before its end."""
    connection, response = ask(place, "POST", "/v1/chat/completions", body, seconds=SILENCE_SECONDS)
    try:
        if response.status != http.HTTPStatus.OK:
            raise Failure(complaint(place, response))
        if body["stream"]:
            yield from _streamed(response)
        else:
            yield _plain(response)
    except (OSError, http.client.HTTPException):
        raise Failure("\nthe answer broke off: the connection was lost") from None
    finally:
        connection.close()


def _plain(response: http.client.HTTPResponse) -> str:
    try:
        message = json.loads(response.read())["choices"][0]["message"]
        return str(message.get("content") or message.get("refusal") or "")
    except (ValueError, LookupError, TypeError, AttributeError):
        raise Failure("the answer is not a chat completion") from None


def _streamed(response: http.client.HTTPResponse) -> Iterator[str]:
    """Read server-sent events (WHATWG HTML, section 9.2), one data line each, as chat streams have them."""
    while line := response.readline(LINE_BYTES):
        name, _, value = line.partition(b":")
        data = value.strip()
        if name != b"data":
            continue
        if data == DONE:
            return
        try:
            event = json.loads(data)
        except ValueError:
            raise Failure("\nthe stream holds something that is not JSON") from None
        message = error_message(event)
        if message is not None:
            raise Failure(f"\nthe answer broke off: {message}")
        yield _delta(event)
    raise Failure("\nthe answer broke off: the stream ended before its end")


def _delta(event: object) -> str:
    try:
        delta = event["choices"][0]["delta"]  # type: ignore[index]  # the shape is what is tried here
        return str(delta.get("content") or delta.get("refusal") or "")
    except (LookupError, TypeError, AttributeError):
        return ""  # a usage chunk has no choices
