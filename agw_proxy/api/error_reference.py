"""docs/errors.md, made from the error tree: ``python -m agw_proxy.api.error_reference > docs/errors.md``."""

import sys

from agw_proxy.errors import CODES

INTRODUCTION = """\
# Errors

Made from the error tree by `python -m agw_proxy.api.error_reference > docs/errors.md`; a test compares.

An error has one shape, that of the API it answers:

```json
{"error": {"message": "...", "type": "invalid_request_error", "param": "model", "code": "model_not_found"}}
```

`x-agw-error` carries the gateway's own code, from the closed set below: it says who has to act. `caller_*`: the request;
`policy_*`: the operator's rules; `upstream_*`: the service behind; `gateway_*`: the gateway. The log line of the
exchange (`outcome`) has the same code, under the request id that `x-request-id` gives.

`x-should-retry: false` comes with errors of an upstream: the gateway has tried again already where that made sense.
429 and 503 carry `Retry-After` in seconds and `retry-after-ms`.

In a stream that has begun, an error is an event and the end of the connection, without `[DONE]`:

```
event: error
data: {"type": "error", "error": {"message": "...", "type": "api_error", "param": null, "code": "upstream_stream_broken"}}
```

| Code (`x-agw-error`) | Status | `type` | `code` | What it means |
|---|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    rows = []
    for code, error in sorted(CODES.items()):
        meaning = " ".join((error.__doc__ or "").split("\n\n", 1)[0].split()).replace("|", "\\|").replace("``", "`")
        status = "the upstream's" if code == "upstream_rejected" else str(error.status)
        rows.append(f"| `{code}` | {status} | `{error.kind}` | `{error.alias or code}` | {meaning} |\n")
    return INTRODUCTION + "".join(rows)


if __name__ == "__main__":
    sys.stdout.write(page())
