# syntax=docker/dockerfile:1
# One image for every role: `worker` by default, `flower`, `backfill`, `stand-in` and the rest by their names.
ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /src
# `.src` is for editable installs only; the wheel is made from the real folders.
COPY pyproject.toml README.md LICENSE CHANGELOG.md CONTRIBUTING.md ./
COPY cli cli
COPY config config
COPY stand_in stand_in
COPY tasks tasks
COPY workers workers
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:${PYTHON_VERSION}-slim
# Extras that the image carries, e.g. --build-arg EXTRAS="[bedrock]"
ARG EXTRAS=""
RUN useradd --create-home --uid 10001 penstock \
    && install -d -o penstock -g penstock -m 0700 /var/lib/penstock
COPY --from=build /dist /dist
RUN pip install --no-cache-dir "$(echo /dist/*.whl)${EXTRAS}" && rm -r /dist
USER penstock
ENV PENSTOCK_HOME=/var/lib/penstock \
    PYTHONUNBUFFERED=1
VOLUME /var/lib/penstock
WORKDIR /var/lib/penstock
# Workers of this container answer a ping over the broker; other roles override or disable this.
HEALTHCHECK --interval=30s --timeout=20s --start-period=30s --retries=3 \
    CMD celery -A penstock.workers.app inspect ping -t 10 | grep -q "@$HOSTNAME: OK"
ENTRYPOINT ["penstock"]
CMD ["worker"]
