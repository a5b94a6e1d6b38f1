# agw in a container: nothing of the build is left in the final stage, and nothing runs as root.
# Build arguments name the base, for mirrors and for pinning by digest.
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
# First what changes seldom, so that an edit of the code installs nothing anew.
COPY requirements.lock requirements-build.lock ./
RUN python -m venv /opt/agw \
    && /opt/agw/bin/pip install --no-deps --require-hashes --requirement requirements.lock \
    && python -m venv /opt/build \
    && /opt/build/bin/pip install --no-deps --require-hashes --requirement requirements-build.lock
COPY setup.py pyproject.toml README.md requirements-dev.lock ./
COPY ext ext
COPY agw_proxy agw_proxy
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/agw/bin/pip install --no-deps --no-index /wheels/*.whl
# More of what is optional (bedrock, otel, sql, vertex), in the versions that the tests run with.
ARG EXTRAS=""
RUN if [ -n "$EXTRAS" ]; then \
        sed -nE 's/^([A-Za-z0-9._-]+)==([^ ]+).*/\1==\2/p' requirements-dev.lock >versions.txt \
        && /opt/agw/bin/pip install --constraint versions.txt "$(echo /wheels/*.whl)[$EXTRAS]"; \
    fi \
    && /opt/agw/bin/pip uninstall --yes pip setuptools \
    && /opt/agw/bin/agw --version

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="agw" \
      org.opencontainers.image.description="The fast and trustworthy LLM and agent gateway that runs as a sidecar."
RUN groupadd --gid 10001 agw \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/agw --shell /usr/sbin/nologin agw \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/agw
COPY --from=build /opt/agw /opt/agw
# Others can reach a container's port, so it serves only once keys are configured; GATEWAY_CONFIG or a mounted
# /var/lib/agw/gateway.yaml holds them.
ENV PATH="/opt/agw/bin:$PATH" \
    PYTHONDONTWRITEBYTECODE=1 \
    GATEWAY_SERVER__HOST=0.0.0.0 \
    GATEWAY_SERVER__STATE_DIR=/var/lib/agw
USER 10001:10001
WORKDIR /var/lib/agw
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ.get('GATEWAY_SERVER__PORT', '8080') + '/health', timeout=2)"]
ENTRYPOINT ["agw"]
CMD ["serve"]
