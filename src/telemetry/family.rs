//! What a metric family is.

use super::readings::Readings;
use crate::proxy::Durations;

/// One metric family: what it is called and how it is read. A row of the table in the module's documentation each.
pub(super) struct Family {
    /// Without the prefix, and for counters without `_total`.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) read: fn(&Readings) -> Vec<Sample>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

/// One value, with at most one label.
pub(super) struct Sample {
    pub(super) label: Option<(&'static str, &'static str)>,
    pub(super) value: Value,
}

pub(super) enum Value {
    Number(f64),
    Durations(Durations),
}
