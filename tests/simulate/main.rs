//! `sidescale simulate`, `explain` and `backtest` from outside: files in, files out, and a world that drives the turn.

mod backtest;
mod cases;
mod driven;
mod explain;
mod input;
mod output;
mod place;
