//! The sidecar from outside: real sockets on 127.0.0.1, a toy model server behind it, clients that never retry.
//!
//! One binary, so that there is one link step. Nothing here waits for time to pass: tests wait for what they expect to
//! see, and a limit of life's time turns a wait in vain into a failure.

mod accounts;
mod admission;
mod drain;
mod engine;
mod expect;
mod floods;
mod framing;
mod grpc;
mod h2c;
mod http2;
mod keep_alive;
mod leaving;
mod model_server;
mod pod;
mod proxy;
mod refusals;
mod retirement;
mod scripted;
mod stalled;
mod tls;
mod tunnels;
mod unix;
mod whole;
mod wire;
