"""The request that every peer is asked: what the OpenAI SDK for Python sends, with a body of about 1.5 KB."""

import json
from collections.abc import Mapping

PATH = "/v1/chat/completions"
LEAST_ANSWER_BYTES = 400  # the upstream's answer has about 550; a gateway that writes it anew may drop fields
SYSTEM = (
    "You are the assistant of a support desk for a network appliance. Answer in the language of the question, in at most "
    "three sentences, and name the setting that the user has to change. Where you are not sure, say so and ask for the "
    "version of the firmware. Never invent a menu entry, never ask for a password, and do not repeat the question. "
    "Plain text only: the till that shows your answer knows no markup. If the user is angry, stay calm and offer a call; if "
    "the device is out of service, say first how to get it back, and only then why it stopped. "
)
QUESTION = (
    "We run two of your gateways behind one address. Since the last update some of our requests are refused with a message "
    "about a token bucket, although the dashboard shows that we use less than half of what we pay for. It happens mostly in "
    "the morning, when all shops open at the same time and their tills ask for the prices of the day, and it is over after "
    "a minute or two. What is a token bucket, why does it refuse us while the average is low, and what do I have to change? "
    "The rule in question says 600 requests a minute with a burst of 20; there are 140 shops with one to five tills each. "
)
HISTORY = (
    "Thank you for the details. Which of the two devices answers the requests that are refused, and does it change?"
)


def body(model: str, *, stream: bool) -> bytes:
    """Give the JSON body. A stream's usage is not asked for, as most clients don't."""
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": HISTORY},
        {"role": "user", "content": "It is always the first one, and \u201cfailover\u201d has not happened."},
    ]
    tree: dict[str, object] = {"messages": messages, "model": model, "temperature": 0.2}
    if stream:
        tree["stream"] = True
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode()


def build(port: int, model: str, key: str, more: Mapping[str, str], *, stream: bool) -> bytes:
    """Give the whole request as bytes: headers as the SDK sends them, in its order, then ``more``, then the body."""
    content = body(model, stream=stream)
    headers = {
        "Host": f"127.0.0.1:{port}",
        "Accept-Encoding": "gzip, deflate",
        "Connection": "keep-alive",
        "authorization": f"Bearer {key}",
        "accept": "application/json",
        "content-type": "application/json",
        "user-agent": "OpenAI/Python 3.52.0",
        "x-stainless-lang": "python",
        "x-stainless-package-version": "3.52.0",
        "x-stainless-os": "Linux",
        "x-stainless-arch": "x64",
        "x-stainless-runtime": "CPython",
        "x-stainless-runtime-version": "3.11.7",
        "x-stainless-async": "false",
        "openai-organization": "org-bench",
        "openai-project": "proj_bench",
        "x-stainless-retry-count": "0",
        "x-stainless-read-timeout": "600",
        "Content-Length": str(len(content)),
        **more,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {PATH} HTTP/1.1\r\n{lines}\r\n".encode() + content
