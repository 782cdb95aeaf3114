//! `sidescale simulate` and `sidescale explain` from outside: files in, files out, and a world that drives the turn.

mod cases;
mod driven;
mod explain;
mod input;
mod output;
mod place;
