"""The references: nginx, HAProxy and Envoy, each on one thread, with an access log, pooled connections to the upstream."""

import json
import os
import re
import shutil
from pathlib import Path

from bench.proxies.peer import UPSTREAM_KEY, VENVS, Launch, Peer, Setting, first_line
from bench.proxies.scenarios import FAST

ENVOY = VENVS / "envoy" / "bin" / "envoy"
MANY = 1_000_000


def sbin(name: str) -> str | None:
    """Find a server program, also where a user's PATH has no sbin."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")


def _apt(name: str) -> str | None:
    return None if sbin(name) else f"not installed: `apt-get install {name}` (as root)"


def nginx_config(setting: Setting, location: str, listen: str = "", *, streaming: bool) -> str:
    """An nginx configuration of one worker around one location's lines."""
    folder = setting.folder
    places = "\n  ".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    # As root the workers would become a user who may not enter the folder.
    user = "user root;" if os.geteuid() == 0 else ""
    return f"""
{user}
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
worker_rlimit_nofile {setting.files};
events {{ worker_connections {setting.files}; }}
http {{
  access_log {folder}/access.log combined buffer=64k flush=1s;
  client_body_temp_path {folder}/body;
  {places}
  client_body_buffer_size 64k;
  keepalive_requests {MANY};
  keepalive_timeout 75s;
  upstream bench {{
    server 127.0.0.1:{setting.upstream_port};
    keepalive 512;
    keepalive_requests {MANY};
  }}
  server {{
    listen 127.0.0.1:{setting.port} {listen} backlog=16384;
    location / {{
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_read_timeout 300s;
      proxy_buffering {"off" if streaming else "on"};
      {location}
    }}
  }}
}}
"""


def _nginx(setting: Setting) -> Launch:
    lines = f'proxy_set_header Authorization "Bearer {UPSTREAM_KEY}";\n'
    if setting.ca_file is None:
        lines += "proxy_pass http://bench;"
    else:
        lines += f"""proxy_pass https://bench;
      proxy_ssl_server_name on;
      proxy_ssl_name localhost;
      proxy_ssl_protocols TLSv1.2 TLSv1.3;
      proxy_ssl_verify on;
      proxy_ssl_trusted_certificate {setting.ca_file};"""
    file = setting.folder / "nginx.conf"
    file.write_text(nginx_config(setting, lines, streaming=setting.streaming))
    return Launch(
        [sbin("nginx") or "nginx", "-p", str(setting.folder), "-e", str(setting.folder / "e"), "-c", str(file)]
    )


def tls_front(setting: Setting, certificate: Path, key: Path) -> Launch:
    """An nginx that ends TLS in front of the upstream: part of the load's side, the same for every peer."""
    listen = f"ssl;\n    ssl_certificate {certificate};\n    ssl_certificate_key {key};\n    ssl_protocols TLSv1.3;\n"
    file = setting.folder / "nginx.conf"
    # `listen ... ssl backlog` in one statement, then the certificate's lines.
    text = nginx_config(setting, "proxy_pass http://bench;", "ssl", streaming=True)
    file.write_text(text.replace("    location / {", listen.partition("\n")[2] + "    location / {"))
    return Launch(
        [sbin("nginx") or "nginx", "-p", str(setting.folder), "-e", str(setting.folder / "e"), "-c", str(file)]
    )


def _haproxy(setting: Setting) -> Launch:
    file = setting.folder / "haproxy.cfg"
    file.write_text(f"""
global
  nbthread 1
  maxconn {(setting.files - 200) // 2}
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  http-reuse always
  # Without it, it holds small pieces of a chunked answer back for up to 200 ms.
  option http-no-delay
frontend bench
  bind 127.0.0.1:{setting.port}
  default_backend upstream
backend upstream
  http-request set-header Authorization "Bearer {UPSTREAM_KEY}"
  server one 127.0.0.1:{setting.upstream_port}
""")
    return Launch([sbin("haproxy") or "haproxy", "-db", "-f", str(file)])


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _envoy(setting: Setting) -> Launch:
    v3 = "type.googleapis.com/envoy.extensions"
    manager = {
        "@type": f"{v3}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "access_log": [
            {
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": f"{v3}.access_loggers.file.v3.FileAccessLog",
                    "path": str(setting.folder / "access.log"),
                },
            }
        ],
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{v3}.filters.http.router.v3.Router"},
            }
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "request_headers_to_add": [
                        {
                            "header": {"key": "authorization", "value": f"Bearer {UPSTREAM_KEY}"},
                            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                        }
                    ],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "0s"}}],
                }
            ]
        },
    }
    no_bound = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), MANY)
    config = {
        "static_resources": {
            "listeners": [
                {
                    "address": _address(setting.port),
                    "filter_chains": [
                        {
                            "filters": [
                                {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
                            ]
                        }
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "upstream",
                    "type": "STATIC",
                    "circuit_breakers": {"thresholds": [no_bound]},
                    "load_assignment": {
                        "cluster_name": "upstream",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(setting.upstream_port)}}]}],
                    },
                }
            ],
        }
    }
    file = setting.folder / "envoy.json"
    file.write_text(json.dumps(config))
    return Launch([str(ENVOY), "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"])


def _envoy_version() -> str:
    found = re.search(r"/(\d+\.\d+\.\d+)/", first_line(ENVOY, "--version", holding="version"))
    return found[1] if found else ""


NGINX = Peer(
    name="nginx",
    title="nginx",
    speed=FAST,
    version=lambda: first_line(sbin("nginx") or "nginx", "-v").rpartition("/")[2],
    missing=lambda: _apt("nginx"),
    launch=_nginx,
)
HAPROXY = Peer(
    name="haproxy",
    title="HAProxy",
    speed=FAST,
    version=lambda: (first_line(sbin("haproxy") or "haproxy", "-v").split() or ["", "", ""])[2].partition("-")[0],
    missing=lambda: _apt("haproxy"),
    launch=_haproxy,
)
ENVOY_PEER = Peer(
    name="envoy",
    title="Envoy",
    speed=FAST,
    version=_envoy_version,
    missing=lambda: None if ENVOY.exists() else "not installed: `python -m bench.proxies.compare --install`",
    launch=_envoy,
)
