//! The demo's own trace: one client of a production LLM service, from ServeGen (Alibaba, Apache-2.0), in bins of ten
//! minutes; `servegen_m_mid_c15_600s.README.md` beside it has the source and the licence.

pub use crate::simulate::{Arrivals, Trace, TraceError};

/// Fourteen days of one production client, off at night, up to 321 requests a second by day.
#[expect(
    clippy::missing_panics_doc,
    reason = "a test reads the trace that is built in"
)]
pub fn servegen() -> Trace {
    Trace::parse(
        "servegen_m_mid_c15_600s.csv",
        include_str!("servegen_m_mid_c15_600s.csv"),
    )
    .expect("the trace that is built in is a good one")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_built_in_trace_is_fourteen_days_with_busy_mornings() {
        let secs = Duration::from_secs;
        let trace = servegen();
        assert_eq!(trace.bin(), secs(600));
        assert!(trace.end() > secs(13 * 86_400) && trace.end() < secs(15 * 86_400));
        assert!((trace.peak_rate() - 321.478).abs() < 0.001);
        // The first bin of work begins at 01:30 of the first day: 87,333 requests in ten minutes.
        assert_eq!(trace.rate(secs(5_400 + 300)), Some(87_333.0 / 600.0));
        assert_eq!(trace.rate(secs(1_200)), Some(0.0));
        assert!(trace.mean_rate() > 30.0 && trace.mean_rate() < 100.0);
    }
}
