FROM rust:1-slim-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY config config
COPY src src
COPY benches benches
RUN cargo build --release --locked --bin vestibule && strip target/release/vestibule

FROM debian:bookworm-slim
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /build/target/release/vestibule /usr/local/bin/vestibule
COPY LICENSE /usr/share/doc/vestibule/LICENSE
COPY config /etc/vestibule
USER 65532:65532
EXPOSE 8080 9901
STOPSIGNAL SIGTERM
ENTRYPOINT ["vestibule"]
CMD ["run", "-c", "/etc/vestibule/vestibule.toml"]
