# syntax=docker/dockerfile:1.7
# pixeld alone, without a shell: docker build -t pixeld . (docker-compose.yml has the rest: PostgreSQL, Redis, nginx)

# The compiler that the program is tested with.
FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
ENV CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0

# The dependencies, which take most of the time, are a layer of their own that lasts until Cargo.lock changes: they are
# built with empty sources. It is a layer and not a cache mount, since layers also go to and come from a registry
# (--cache-to, --cache-from), so a builder that is new each time (CI) has them, too.
COPY Cargo.toml Cargo.lock build.rs ./
COPY crates/core/Cargo.toml crates/core/Cargo.toml
COPY crates/spool/Cargo.toml crates/spool/Cargo.toml
COPY crates/edge/Cargo.toml crates/edge/Cargo.toml
COPY crates/testkit/Cargo.toml crates/testkit/Cargo.toml
COPY loadtest/Cargo.toml loadtest/Cargo.toml
COPY scripts/empty-sources.sh scripts/empty-sources.sh
RUN sh scripts/empty-sources.sh && cargo build --profile shipped --locked --package pixeld

# Then pixeld itself. The result of the empty sources is newer than these files, so cargo would keep it: hence clean.
COPY . .
# Time of the build in seconds since 1970, for reproducible builds; its day is the earliest that a hit can have.
ARG SOURCE_DATE_EPOCH
RUN cargo clean --profile shipped --locked \
        --package pixeld --package pixeld-core --package pixeld-spool --package pixeld-edge \
    && cargo build --profile shipped --locked --package pixeld \
    && strip --strip-debug target/shipped/pixeld \
    && test -n "$(target/shipped/pixeld --version)" \
    && mkdir /data

# glibc, libgcc, CA certificates and time zones; no shell, no package manager. The same Debian as the compiler's, whose
# glibc pixeld needs.
FROM gcr.io/distroless/cc-debian12:nonroot
ARG VERSION=0.1.0
ARG REVISION
LABEL org.opencontainers.image.title="pixeld" \
      org.opencontainers.image.description="Tells senders of email which messages were opened: a tracking-pixel edge server whose answered opens are never lost" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /src/target/shipped/pixeld /usr/local/bin/pixeld
# A new volume that is mounted here gets this folder's owner.
COPY --from=build --chown=65532:65532 /data /var/lib/pixeld

# This image has no PostgreSQL to run: without DATABASE_URL (or DATABASE_URL_FILE) every command ends with status 64 and
# says so.
ENV PIXELD_REQUIRE_DATABASE_URL=true \
    PIXELD_DATA_DIR=/var/lib/pixeld
# A folder that is nobody's home.
WORKDIR /var/lib/pixeld
VOLUME /var/lib/pixeld
USER 65532:65532
# Pixels, for the world; and the admin page, which listens on 127.0.0.1 only, unless PIXELD_ADMIN_LISTEN says otherwise.
EXPOSE 8080 8081
# Drains: accepted work is finished within PIXELD_DRAIN_SECONDS (10). Give it more time: docker stop --time 20.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["pixeld", "healthcheck"]
ENTRYPOINT ["pixeld"]
CMD ["serve"]
