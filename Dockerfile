# The image that sidecar.yaml names: `sidescale` on glibc, because NVML is a shared library that is looked up at run time.
#
#   docker build -t ghcr.io/sidescale/sidescale:0.1.0 .
#
# `.ci/image` builds it without Docker: it reads the last stage, line by line.

FROM docker.io/library/rust:1.95-trixie AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY src src
COPY benches benches
RUN cargo build --locked --profile dist --bin sidescale

# Of the same Debian as above, so that the binary finds the glibc it was linked with. No shell, no package manager.
FROM gcr.io/distroless/cc-debian13:nonroot
# Where the NVIDIA container toolkit gives this container a device, it mounts NVML for this word.
ENV NVIDIA_DRIVER_CAPABILITIES=utility
COPY LICENSE /usr/share/doc/sidescale/LICENSE
COPY --from=build /src/target/dist/sidescale /usr/local/bin/sidescale
# By number: `runAsNonRoot` cannot judge a name.
USER 65532:65532
EXPOSE 8080 9090 9190
ENTRYPOINT ["/usr/local/bin/sidescale"]
