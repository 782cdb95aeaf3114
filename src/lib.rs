//! sidescale: a forecasting sidecar that scales GPU inference Deployments ahead of their load.
//!
//! One small container stands next to every inference server. It carries the requests, measures request rate and GPU
//! load in its own process, and elects one leader among its fellows through a Kubernetes Lease. The leader forecasts
//! the load of the whole Deployment, computes the replicas needed by the time new pods can be ready, and scales its own
//! Deployment.
//!
//! # The way of the data
//!
//! ```text
//! proxy, gpu, engine  ->  report  ->  fleet  ->  history  ->  tuning  ->  plan  ->  scale
//!  measure                one pod     all pods    weeks        advice     replicas   the Deployment
//!                                                                         + reasons
//! ```
//!
//! Everything left of `fleet` runs in every pod; everything right of it runs in the leader. That is one of the sidecars, or a
//! process of `sidescale lead` where there is one: the same without a server, which the sidecars prefer (`leader::preference`).
//!
//! # Floors
//!
//! A module may import from a lower floor or from its own subtree, never from its own floor's other modules or from
//! above. `tests/architecture.rs` parses this table and holds the sources to it.
//!
//! ```floors
//!  0 clock units lifecycle causes cgroup memory pace ablation labels
//!  1 policy proxy gpu engine api
//!  2 leader report layer
//!  3 fleet
//!  4 history
//!  5 forecast behavior
//!  6 tuning baseline
//!  7 plan
//!  8 scale
//!  9 config
//! 10 controller
//! 11 admin local telemetry simulate inject
//! 12 app backtest survey upgrade webhook
//! 13 demo
//! 14 cli
//! ```
//!
//! # What is pure
//!
//! ```pure
//! units pace ablation labels policy engine::dialect engine::tally engine::text history forecast behavior tuning plan baseline
//! fleet::parting fleet::reach fleet::spread controller leader::machine leader::part leader::preference inject
//! simulate::clairvoyant simulate::columns simulate::foresight simulate::leader simulate::ledger simulate::play
//! simulate::poisson simulate::summary simulate::timeline backtest::conformal backtest::holt_winters backtest::measure backtest::minutes
//! backtest::ours backtest::point backtest::table webhook::manifests webhook::renewal webhook::review
//! ```
//!
//! These name no runtime, socket, clock or random source: `now` and a seeded generator are given to them.

pub mod ablation;
pub mod admin;
pub mod api;
pub mod app;
pub mod backtest;
pub mod baseline;
pub mod behavior;
pub mod causes;
pub mod cgroup;
pub mod cli;
pub mod clock;
pub mod config;
pub mod controller;
pub mod demo;
pub mod engine;
pub mod fleet;
pub mod forecast;
pub mod gpu;
pub mod history;
pub mod inject;
pub mod labels;
pub mod layer;
pub mod leader;
pub mod lifecycle;
pub mod local;
pub mod memory;
pub mod pace;
pub mod plan;
pub mod policy;
pub mod proxy;
pub mod report;
pub mod scale;
pub mod simulate;
pub mod survey;
pub mod telemetry;
pub mod tuning;
pub mod units;
pub mod upgrade;
pub mod webhook;
