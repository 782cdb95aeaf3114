//! Where log lines go: to standard error, filtered as the user says.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum BadFilter {
    /// The filter cannot be read.
    #[error(
        "log filter `{filter}` cannot be read (write for example `info` or `sidescale=debug,warn`)"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something else in this process logs already.
    #[error("logs were set up twice in one process")]
    Twice(#[source] TryInitError),
}

/// Sends log lines to standard error, so that standard output stays a command's answer.
///
/// `filter` is what `RUST_LOG` takes: `info`, or `sidescale=debug,warn`. Colour only where a terminal reads it.
pub fn init_logs(filter: &str) -> Result<(), BadFilter> {
    let directives = EnvFilter::builder()
        .parse(filter)
        .map_err(|source| BadFilter::Filter {
            filter: filter.to_owned(),
            source,
        })?;
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal);
    tracing_subscriber::registry()
        .with(directives)
        .with(lines)
        .try_init()
        .map_err(BadFilter::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let error = init_logs("sidescale=loud").expect_err("no such level");
        assert!(error.to_string().contains("`sidescale=loud`"), "{error}");
    }
}
